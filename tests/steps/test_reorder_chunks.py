import pytest
import torch
from arrays import apply

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.reorder_chunks import ReorderChunks


def test_chunk_i_of_the_output_is_chunk_order_i_of_the_input() -> None:
    (out,) = apply(ReorderChunks(dim=0, order=(2, 0, 1)), [torch.arange(6)])
    assert out.tolist() == [4, 5, 0, 1, 2, 3]


def test_one_zero_swaps_the_halves() -> None:
    (out,) = apply(ReorderChunks(dim=1, order=(1, 0)), [torch.arange(8).reshape(2, 4)])
    assert out.tolist() == [[2, 3, 0, 1], [6, 7, 4, 5]]


def test_a_dim_that_does_not_divide_is_refused() -> None:
    with pytest.raises(StepError, match="does not divide into 2 equal chunks"):
        ReorderChunks(dim=0, order=(1, 0)).infer((TensorSpec("F32", (5,)),))


@pytest.mark.parametrize("order", [(), (1, 2), (0, 0, 1)])
def test_an_order_that_is_no_permutation_is_refused(order: tuple[int, ...]) -> None:
    with pytest.raises(RuleError, match="order is not a permutation"):
        ReorderChunks(dim=0, order=order)


def test_an_output_that_does_not_divide_has_no_preimage() -> None:
    with pytest.raises(StepError, match="does not divide"):
        ReorderChunks(dim=0, order=(1, 0)).preimage(((5,),))
