import pytest
import torch
from arrays import apply

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.split import Split


def test_pieces_are_consecutive_and_of_the_stated_sizes() -> None:
    first, second = apply(Split(dim=1, sizes=(1, 2)), [torch.arange(6).reshape(2, 3)])
    assert (first.tolist(), second.tolist()) == ([[0], [3]], [[1, 2], [4, 5]])


def test_sizes_that_do_not_add_up_are_refused_with_their_sum() -> None:
    with pytest.raises(StepError) as caught:
        Split(dim=0, sizes=(2, 2)).infer((TensorSpec("F32", (6, 8)),))
    finding = caught.value.findings[0]
    assert finding.expected == "6, the size of dim 0 of F32 [6, 8]"
    assert finding.got == "2 + 2 = 4"


@pytest.mark.parametrize("sizes", [(), (4, -1)])
def test_no_sizes_or_a_negative_one_are_refused_without_a_tensor(sizes: tuple[int, ...]) -> None:
    with pytest.raises(RuleError, match="sizes of pieces"):
        Split(dim=0, sizes=sizes)


def test_a_piece_of_size_zero_is_an_empty_tensor() -> None:
    empty, all_of_it = apply(Split(dim=0, sizes=(0, 2)), [torch.arange(2)])
    assert (empty.tolist(), all_of_it.tolist()) == ([], [0, 1])


def test_its_outputs_tell_the_shape_of_the_input() -> None:
    assert Split(dim=0, sizes=(4, 2)).preimage(((4, 8), (2, 8))) == ((6, 8),)


def test_an_output_of_another_size_than_stated_is_named() -> None:
    with pytest.raises(StepError, match="output 1 is not of the stated size"):
        Split(dim=0, sizes=(4, 2)).preimage(((4, 8), (3, 8)))


def test_outputs_that_differ_along_another_dim_have_no_preimage() -> None:
    with pytest.raises(StepError, match="differ along a dim other than 0"):
        Split(dim=0, sizes=(4, 2)).preimage(((4, 8), (2, 7)))


def test_another_number_of_outputs_has_no_preimage() -> None:
    with pytest.raises(StepError, match="2 outputs are made"):
        Split(dim=0, sizes=(4, 2)).preimage(((4, 8),))
