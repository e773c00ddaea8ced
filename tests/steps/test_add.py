import numpy as np
import pytest

from converter.errors import RuleError, StepError, ValueRefusedError
from converter.spec import TensorSpec
from converter.steps.add import Add


def test_tensors_are_added_in_float64_and_rounded_once() -> None:
    parts = [np.array([1, 2.0**24], np.float32), np.array([2.0**-24, 1], np.float32)]
    third = np.array([2.0**-24, 1], np.float32)
    (made,) = Add().apply([*parts, third])
    assert made.tolist() == [1 + 2.0**-23, 2.0**24 + 2], "F32 would lose both small ones"


def test_a_number_is_added_after_the_tensors() -> None:
    (made,) = Add(value=1).apply([np.array([-0.25], np.float32), np.array([0.5], np.float32)])
    assert made.tolist() == [1.25]


def test_one_tensor_and_no_number_is_nothing_to_add() -> None:
    spec = TensorSpec("F32", (2,))
    assert Add(value=1).infer((spec,)) == (spec,)
    with pytest.raises(StepError, match="there is nothing to add"):
        Add().infer((spec,))


def test_tensors_that_differ_are_refused() -> None:
    with pytest.raises(StepError, match="differ in shape"):
        Add().infer((TensorSpec("F32", (2,)), TensorSpec("F32", (1,))))
    with pytest.raises(StepError, match="differ in dtype"):
        Add().infer((TensorSpec("F32", (2,)), TensorSpec("F16", (2,))))
    with pytest.raises(StepError, match="I8 is no float"):
        Add().infer((TensorSpec("I8", (2,)),) * 2)
    with pytest.raises(StepError, match="no tensors"):
        Add(value=1).infer(())


def test_an_overflow_is_refused() -> None:
    with pytest.raises(ValueRefusedError, match="1 of 1 values overflow F16"):
        Add().apply([np.array([60000], np.float16)] * 2)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(RuleError, match="no number to add"):
        Add(value=value)


def test_a_sum_does_not_tell_its_parts() -> None:
    spec = TensorSpec("F32", (2,))
    assert Add(value=1).inverse((spec,)) is None
