import pytest
import torch
from arrays import apply

from converter.errors import StepError
from converter.spec import TensorSpec
from converter.steps.unstack import Unstack


def test_slices_come_in_order_without_the_dim() -> None:
    slices = apply(Unstack(dim=1), [torch.arange(6).reshape(2, 3)])
    assert [part.tolist() for part in slices] == [[0, 3], [1, 4], [2, 5]]


def test_an_empty_dim_is_refused() -> None:
    with pytest.raises(StepError, match="dim 0 is empty"):
        Unstack(dim=0).infer((TensorSpec("F32", (0, 4)),))


def test_its_outputs_tell_the_shape_of_the_input() -> None:
    assert Unstack(dim=0).preimage(((4, 8),) * 3) == ((3, 4, 8),)


def test_outputs_that_differ_have_no_preimage() -> None:
    with pytest.raises(StepError, match="tensors 0 and 1 differ"):
        Unstack(dim=0).preimage(((4, 8), (4, 7)))


def test_more_tensors_than_a_checkpoint_has_are_refused_before_they_are_listed() -> None:
    with pytest.raises(StepError, match="too many tensors"):
        Unstack(dim=0).infer((TensorSpec("F32", (10**12, 3)),))
