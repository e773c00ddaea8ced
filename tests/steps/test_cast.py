import math

import pytest
import torch

from converter.errors import RuleError, StepError, ValueRefusedError
from converter.spec import TensorSpec
from converter.steps.cast import Cast

INF = math.inf


def refusal(tensor: torch.Tensor, dtype: str) -> tuple[str, str | None]:
    with pytest.raises(ValueRefusedError) as caught:
        Cast(dtype).apply([tensor])
    return caught.value.findings[0].what, caught.value.findings[0].got


def test_float64_to_a_narrow_float_is_rounded_once() -> None:
    just_above_a_tie = torch.tensor([1 + 2.0**-11 + 2.0**-40], dtype=torch.float64)
    (out,) = Cast("F16").apply([just_above_a_tie])
    assert out.tolist() == [1 + 2.0**-10]


@pytest.mark.parametrize(
    ("dtype", "beyond"), [("F16", 65520.0), ("F8_E4M3", 449.0), ("F8_E5M2", -57345.0)]
)
def test_an_overflow_is_refused_with_count_and_largest(dtype: str, beyond: float) -> None:
    what, got = refusal(torch.tensor([1.0, beyond, beyond * 2]), dtype)
    assert (what, got) == (f"cast: 2 of 3 values overflow {dtype}", repr(abs(beyond) * 2))


def test_an_overflow_of_a_narrow_source_is_seen() -> None:
    what, _ = refusal(torch.tensor([65536.0], dtype=torch.bfloat16), "F16")
    assert what == "cast: 1 of 1 values overflow F16"


def test_the_largest_number_still_fits() -> None:
    (out,) = Cast("F8_E4M3").apply([torch.tensor([448.0, -448.0])])
    assert out.float().tolist() == [448.0, -448.0]


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64", "F8_E5M2"])
def test_infinity_and_nan_pass_between_floats(dtype: str) -> None:
    (cast,) = Cast(dtype).apply([torch.tensor([INF, -INF, math.nan])])
    out = cast.to(torch.float64)
    assert out.tolist()[:2] == [INF, -INF]
    assert out[2].isnan()


def test_infinity_is_refused_by_a_float_without_one() -> None:
    what, _ = refusal(torch.tensor([INF, math.nan]), "F8_E4M3")
    assert what == "cast: 1 of 2 values overflow F8_E4M3"


def test_integers_out_of_range_are_refused_with_the_largest() -> None:
    what, got = refusal(torch.tensor([-129, 5, 128]), "I8")
    assert (what, got) == ("cast: 2 of 3 integers do not fit I8", "-129")


@pytest.mark.parametrize("dtype", ["U8", "U32", "U64"])
def test_a_negative_integer_never_wraps(dtype: str) -> None:
    refusal(torch.tensor([-1]), dtype)


def test_a_large_unsigned_integer_never_wraps() -> None:
    refusal(torch.tensor([2**63], dtype=torch.uint64), "I64")


def test_an_integer_that_a_float_may_not_hold_exactly_is_refused() -> None:
    (out,) = Cast("F32").apply([torch.tensor([2**24])])
    assert out.tolist() == [2.0**24]
    refusal(torch.tensor([2**24 + 1]), "F32")


@pytest.mark.parametrize("value", [0.5, 2.0**63, -(2.0**64), INF, math.nan])
def test_a_float_that_is_no_integer_in_range_is_refused(value: float) -> None:
    refusal(torch.tensor([value]), "I64")


def test_whole_floats_become_integers() -> None:
    (out,) = Cast("I64").apply([torch.tensor([-(2.0**63), 3.0])])
    assert out.tolist() == [-(2**63), 3]


def test_booleans_are_zero_and_one() -> None:
    (out,) = Cast("BOOL").apply([torch.tensor([0, 1])])
    assert out.tolist() == [False, True]
    refusal(torch.tensor([2]), "BOOL")


@pytest.mark.parametrize(
    ("source", "target", "exact"),
    [
        ("BF16", "F32", True),
        ("F8_E4M3", "F16", True),
        ("I64", "F32", True),
        ("F32", "BF16", False),
        ("F16", "BF16", False),
        ("BF16", "F16", False),
        ("F32", "I64", False),
    ],
)
def test_it_can_be_undone_only_where_nothing_is_rounded(
    source: str, target: str, exact: bool
) -> None:
    inverse = Cast(target).inverse((TensorSpec(source, (4,)),))
    assert inverse == (Cast(source) if exact else None)


def test_an_unknown_dtype_is_refused_with_the_nearest() -> None:
    with pytest.raises(RuleError, match="no dtype of numbers") as caught:
        Cast("FP16")
    assert caught.value.findings[0].hint == "did you mean 'F16'?"


def test_complex_numbers_cannot_be_cast() -> None:
    with pytest.raises(StepError, match="C64 cannot be cast"):
        Cast("F32").infer((TensorSpec("C64", (4,)),))
