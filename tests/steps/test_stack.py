import pytest
import torch
from arrays import apply

from converter.errors import StepError
from converter.spec import TensorSpec
from converter.steps.stack import Stack


def test_tensors_are_laid_along_a_new_dim_in_list_order() -> None:
    (whole,) = apply(Stack(dim=1), [torch.tensor([1, 2]), torch.tensor([3, 4])])
    assert whole.tolist() == [[1, 3], [2, 4]]


def test_the_new_dim_may_be_the_last() -> None:
    assert Stack(dim=1).infer((TensorSpec("F32", (4,)),) * 3) == (TensorSpec("F32", (4, 3)),)


def test_a_new_dim_beyond_the_last_is_refused() -> None:
    with pytest.raises(StepError, match="no place for a new dim 2"):
        Stack(dim=2).infer((TensorSpec("F32", (4,)),) * 3)


def test_tensors_of_different_shapes_are_refused() -> None:
    with pytest.raises(StepError, match="tensors 0 and 2 differ in shape"):
        Stack(dim=0).infer((*(TensorSpec("F32", (4,)),) * 2, TensorSpec("F32", (5,))))


def test_dtypes_are_never_promoted() -> None:
    with pytest.raises(StepError, match="differ in dtype"):
        Stack(dim=0).infer((TensorSpec("F32", (4,)), TensorSpec("F16", (4,))))


def test_the_output_tells_how_many_inputs_of_which_shape() -> None:
    assert Stack(dim=0).preimage(((3, 4, 8),)) == ((4, 8),) * 3


def test_an_output_of_no_tensors_has_no_preimage() -> None:
    with pytest.raises(StepError, match="counts the tensors stacked"):
        Stack(dim=0).preimage(((0, 4),))


def test_more_tensors_than_a_checkpoint_has_are_refused_before_they_are_listed() -> None:
    with pytest.raises(StepError, match="too many tensors"):
        Stack(dim=0).preimage(((10**12, 3),))
