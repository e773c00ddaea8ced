import ml_dtypes
import numpy as np
import pytest

from converter.errors import RuleError, StepError, ValueRefusedError
from converter.spec import TensorSpec
from converter.steps.chain import apply_chain
from converter.steps.scale import Scale

SPEC = TensorSpec("F32", (2,))


def test_each_element_is_the_rounded_product() -> None:
    tensor = np.array([1, 3, -7], np.float32)
    (made,) = Scale(by=0.1).apply([tensor])
    assert made.dtype == np.float32
    assert made.tolist() == (tensor.astype(np.float64) * 0.1).astype(np.float32).tolist()


def test_a_narrow_dtype_rounds_once() -> None:
    """No result is further from the product than one that is rounded by way of F32."""
    tensor = np.linspace(-3, 3, 4001).astype(ml_dtypes.bfloat16)
    (made,) = Scale(by=1.0039215).apply([tensor])
    exact = tensor.astype(np.float64) * 1.0039215
    nearest = exact.astype(ml_dtypes.bfloat16).astype(np.float64)
    grid = made.astype(np.float64)
    assert np.all(np.abs(grid - exact) <= np.abs(nearest - exact))


@pytest.mark.parametrize(
    ("by", "back"), [(8, 0.125), (-2.0, -0.5), (1, 1), (0.5, None), (3, None), (-0.25, None)]
)
def test_powers_of_two_from_1_on_are_undone_and_no_others(by: float, back: float | None) -> None:
    inverse = Scale(by=by).inverse((SPEC,))
    assert (None if inverse is None else inverse.by) == back


def test_the_smallest_numbers_come_back_from_a_larger_scale() -> None:
    tiny = np.array([2.0**-149, -(2.0**-148), -0.0], np.float32)
    (scaled,) = Scale(by=2).apply([tiny])
    inverse = Scale(by=2).inverse((SPEC,))
    assert inverse is not None
    assert inverse.apply([scaled])[0].tobytes() == tiny.tobytes()


def test_an_overflow_is_refused_with_its_size() -> None:
    with pytest.raises(ValueRefusedError, match="1 of 2 values overflow F16") as caught:
        Scale(by=2).apply([np.array([1, 60000], np.float16)])
    assert caught.value.findings[0].got == "120000.0"


def test_an_overflow_of_float64_is_refused() -> None:
    with pytest.raises(ValueRefusedError, match="1 of 1 values overflow F64"):
        apply_chain([Scale(by=10)], [np.array([1e308])])


def test_what_is_infinite_or_no_number_stays_so() -> None:
    (made,) = Scale(by=2).apply([np.array([np.inf, -np.inf, np.nan], np.float32)])
    assert made.tolist()[:2] == [np.inf, -np.inf]
    assert np.isnan(made[2])


@pytest.mark.parametrize("by", [0, 0.0, float("inf"), float("nan"), 10**400])
def test_a_number_that_means_nothing_is_refused(by: float) -> None:
    with pytest.raises(RuleError, match="no number to multiply by"):
        Scale(by=by)


def test_integers_are_refused_with_a_hint() -> None:
    with pytest.raises(StepError, match="I64 is no float") as caught:
        Scale(by=2).infer((TensorSpec("I64", (2,)),))
    assert caught.value.findings[0].hint == "cast it first"
