import pytest
import torch
from arrays import apply

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.permute import Permute


def test_dim_i_of_the_output_is_dim_dims_i_of_the_input() -> None:
    (out,) = apply(Permute(dims=(2, 0, 1)), [torch.arange(24).reshape(2, 3, 4)])
    assert out.shape == (4, 2, 3)
    assert int(out[3, 1, 2]) == 23


def test_dims_other_than_all_of_the_tensor_are_refused() -> None:
    with pytest.raises(StepError, match="2 dims are ordered"):
        Permute(dims=(1, 0)).infer((TensorSpec("F32", (4, 8, 3)),))


@pytest.mark.parametrize("dims", [(), (0, 0), (0, 2), (0, -1)])
def test_dims_that_are_no_permutation_are_refused(dims: tuple[int, ...]) -> None:
    with pytest.raises(RuleError, match="not a permutation"):
        Permute(dims=dims)


def test_the_output_tells_the_shape_of_the_input() -> None:
    assert Permute(dims=(2, 0, 1)).preimage(((3, 4, 8),)) == ((4, 8, 3),)
