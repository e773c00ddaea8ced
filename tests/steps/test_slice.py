import pytest
import torch
from arrays import apply

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.slice_ import Slice


def test_start_is_kept_and_stop_is_not() -> None:
    (out,) = apply(Slice(dim=0, start=1, stop=3, because="padding"), [torch.arange(4)])
    assert out.tolist() == [1, 2]


def test_a_range_beyond_the_end_is_refused_where_python_would_shorten_it() -> None:
    with pytest.raises(StepError, match="beyond the end of dim 0") as caught:
        Slice(dim=0, start=1, stop=5, because="padding").infer((TensorSpec("F32", (4,)),))
    assert caught.value.findings[0].got == "stop 5"


@pytest.mark.parametrize(("start", "stop"), [(2, 2), (3, 2), (-1, 2)])
def test_an_empty_or_negative_range_is_refused(start: int, stop: int) -> None:
    with pytest.raises(RuleError, match="empty or negative range"):
        Slice(dim=0, start=start, stop=stop, because="padding")


@pytest.mark.parametrize("because", ["", "  "])
def test_discarding_elements_needs_a_reason(because: str) -> None:
    with pytest.raises(RuleError, match="no reason is given"):
        Slice(dim=0, start=0, stop=2, because=because)


def test_it_cannot_be_undone() -> None:
    step = Slice(dim=0, start=0, stop=2, because="padding")
    assert step.inverse((TensorSpec("F32", (4,)),)) is None


def test_an_output_of_another_size_than_kept_has_no_preimage() -> None:
    step = Slice(dim=0, start=1, stop=3, because="padding")
    assert step.preimage(((2, 8),)) is None
    with pytest.raises(StepError, match="not of the size kept"):
        step.preimage(((3, 8),))
