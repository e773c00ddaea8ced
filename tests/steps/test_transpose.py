import pytest
import torch
from arrays import apply

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.transpose import Transpose


def test_it_exchanges_the_first_two_dims_by_default() -> None:
    (out,) = apply(Transpose(), [torch.arange(6).reshape(2, 3)])
    assert out.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_it_exchanges_any_two_dims() -> None:
    step = Transpose(dims=(0, 2))
    assert step.infer((TensorSpec("F32", (4, 8, 3)),)) == (TensorSpec("F32", (3, 8, 4)),)


def test_a_dim_that_is_absent_is_refused() -> None:
    with pytest.raises(StepError, match="no dim 1"):
        Transpose().infer((TensorSpec("F32", (4,)),))


def test_one_dim_twice_is_refused_without_a_tensor() -> None:
    with pytest.raises(RuleError, match="dims are not two"):
        Transpose(dims=(1, 1))


def test_the_output_tells_the_shape_of_the_input() -> None:
    assert Transpose().preimage(((8, 4),)) == ((4, 8),)
