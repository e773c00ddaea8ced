import pytest
import torch
from arrays import apply

from converter.errors import StepError
from converter.spec import TensorSpec
from converter.steps.concat import Concat


def test_tensors_are_laid_end_to_end_in_list_order() -> None:
    (whole,) = apply(Concat(dim=1), [torch.tensor([[1], [2]]), torch.tensor([[3, 4], [5, 6]])])
    assert whole.tolist() == [[1, 3, 4], [2, 5, 6]]


def test_shapes_that_differ_along_another_dim_are_refused() -> None:
    with pytest.raises(StepError, match="tensors 0 and 1 differ") as caught:
        Concat(dim=0).infer((TensorSpec("F32", (4, 8)), TensorSpec("F32", (2, 7))))
    finding = caught.value.findings[0]
    assert (finding.expected, finding.got) == ("[2, 8]", "[2, 7]")


def test_tensors_of_another_rank_are_refused() -> None:
    with pytest.raises(StepError, match="tensors 0 and 1 differ"):
        Concat(dim=0).infer((TensorSpec("F32", (4, 8)), TensorSpec("F32", (4,))))


def test_dtypes_are_never_promoted() -> None:
    with pytest.raises(StepError, match="differ in dtype") as caught:
        Concat(dim=0).infer((TensorSpec("F32", (4,)), TensorSpec("BF16", (4,))))
    assert caught.value.findings[0].hint == "cast them to one dtype first"


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(StepError, match="no tensors"):
        Concat(dim=0).infer(())


def test_the_output_alone_does_not_tell_the_inputs() -> None:
    assert Concat(dim=0).preimage(((6, 8),)) is None


def test_an_output_without_the_dim_has_no_preimage() -> None:
    with pytest.raises(StepError, match="no dim 1"):
        Concat(dim=1).preimage(((6,),))
