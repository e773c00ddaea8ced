import pytest
import torch
from arrays import apply

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.constant import Constant


def test_every_element_is_the_value() -> None:
    (out,) = apply(Constant(value=1.5, shape=(2, 2), dtype="BF16"), [])
    assert out.dtype == torch.bfloat16
    assert out.tolist() == [[1.5, 1.5], [1.5, 1.5]]


def test_a_float_is_rounded_once() -> None:
    just_above_a_tie = 1 + 2.0**-8 + 2.0**-40
    (out,) = apply(Constant(value=just_above_a_tie, shape=(), dtype="BF16"), [])
    assert out.item() == 1 + 2.0**-7


def test_the_largest_integer_of_64_bits_is_kept_exactly() -> None:
    (out,) = apply(Constant(value=2**64 - 1, shape=(1,), dtype="U64"), [])
    assert out.tolist() == [2**64 - 1]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (256, "U8"),
        (-1, "U8"),
        (1.0, "I64"),
        (2, "BOOL"),
        (65505, "F16"),
        (1e39, "F32"),
        (float("inf"), "F32"),
        (float("nan"), "F32"),
    ],
)
def test_a_value_that_the_dtype_does_not_hold_is_refused(value: float, dtype: str) -> None:
    with pytest.raises(RuleError, match="does not hold the value"):
        Constant(value=value, shape=(), dtype=dtype)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(RuleError, match="negative size"):
        Constant(value=0, shape=(2, -1), dtype="F32")


def test_an_unknown_dtype_is_refused_with_the_nearest() -> None:
    with pytest.raises(RuleError, match="no dtype of numbers") as caught:
        Constant(value=0, shape=(), dtype="bf16")
    assert caught.value.findings[0].hint == "did you mean 'BF16'?"


def test_it_takes_no_tensors() -> None:
    with pytest.raises(StepError, match="takes no tensors"):
        Constant(value=0, shape=(), dtype="F32").infer((TensorSpec("F32", ()),))


def test_an_output_of_another_shape_has_no_preimage() -> None:
    step = Constant(value=0, shape=(2,), dtype="F32")
    assert step.preimage(((2,),)) == ()
    with pytest.raises(StepError, match="not of the stated shape"):
        step.preimage(((3,),))
