import ml_dtypes
import numpy as np
import pytest

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.pad import Pad
from converter.steps.slice_ import Slice


def test_elements_are_added_at_both_ends_of_the_dim() -> None:
    (made,) = Pad(dim=1, before=1, after=2, value=9).apply([np.array([[1, 2], [3, 4]])])
    assert made.tolist() == [[9, 1, 2, 9, 9], [9, 3, 4, 9, 9]]


def test_a_float_rounds_the_value_once() -> None:
    (made,) = Pad(dim=0, before=0, after=1, value=0.1).apply([np.zeros(1, ml_dtypes.bfloat16)])
    assert made[1] == np.float64(0.1).astype(ml_dtypes.bfloat16)


def test_the_inverse_keeps_what_was_there() -> None:
    assert Pad(dim=0, before=2, after=1, value=0).inverse((TensorSpec("F32", (3,)),)) == Slice(
        dim=0, start=2, stop=5, because="the rest was added by pad"
    )
    assert Pad(dim=0, before=2, after=1, value=0).inverse((TensorSpec("F32", (0,)),)) is None


@pytest.mark.parametrize("fields", [{"before": -1, "after": 0}, {"before": 0, "after": -1}])
def test_negative_numbers_of_elements_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(RuleError, match="a negative number of elements") as caught:
        Pad(dim=0, value=0, **fields)
    assert caught.value.findings[0].hint == "slice takes elements away"


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("U8", 256), ("I8", 0.5), ("BOOL", 2), ("F16", 1e6), ("F32", float("nan")), ("I32", 1.0)],
)
def test_a_value_that_the_dtype_does_not_hold_is_refused(dtype: str, value: float) -> None:
    with pytest.raises(StepError, match=f"{dtype} does not hold the value"):
        Pad(dim=0, before=0, after=1, value=value).infer((TensorSpec(dtype, (3,)),))


def test_a_dtype_that_has_no_known_numbers_is_refused() -> None:
    with pytest.raises(StepError, match="C64 cannot be padded"):
        Pad(dim=0, before=0, after=1, value=0).infer((TensorSpec("C64", (3,)),))


def test_an_output_shorter_than_what_is_added_is_refused() -> None:
    step = Pad(dim=0, before=2, after=2, value=0)
    assert step.preimage(((5, 4),)) == ((1, 4),)
    with pytest.raises(StepError, match="shorter than what is added"):
        step.preimage(((3, 4),))
