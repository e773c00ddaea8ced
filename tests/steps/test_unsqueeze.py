import pytest
import torch
from arrays import apply

from converter.errors import StepError
from converter.spec import TensorSpec
from converter.steps.unsqueeze import Unsqueeze


def test_the_new_dim_is_of_size_one() -> None:
    (out,) = apply(Unsqueeze(dim=1), [torch.zeros(2, 3)])
    assert out.shape == (2, 1, 3)


def test_the_new_dim_may_be_the_last_but_not_beyond() -> None:
    assert Unsqueeze(dim=1).infer((TensorSpec("F32", (4,)),)) == (TensorSpec("F32", (4, 1)),)
    with pytest.raises(StepError, match="no place for a new dim 2"):
        Unsqueeze(dim=2).infer((TensorSpec("F32", (4,)),))


def test_the_output_tells_the_shape_of_the_input() -> None:
    assert Unsqueeze(dim=1).preimage(((4, 1, 8),)) == ((4, 8),)


def test_an_output_where_the_dim_is_larger_has_no_preimage() -> None:
    with pytest.raises(StepError, match="not of size 1"):
        Unsqueeze(dim=0).preimage(((4, 1),))
