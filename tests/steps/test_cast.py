import math

import pytest
import torch
from arrays import apply, array_of

from converter.errors import RuleError, StepError, ValueRefusedError
from converter.spec import TensorSpec
from converter.steps.cast import Cast
from converter.steps.step import step_parameters
from converter.torch_dtypes import TORCH_DTYPES

INF = math.inf


def flushed(dtype: str, tensor: torch.Tensor) -> int:
    before = [array_of(tensor)]
    return Cast(dtype).flushed(before, Cast(dtype).apply(before))


def refusal(tensor: torch.Tensor, dtype: str) -> tuple[str, str | None]:
    with pytest.raises(ValueRefusedError) as caught:
        apply(Cast(dtype), [tensor])
    return caught.value.findings[0].what, caught.value.findings[0].got


def test_float64_to_a_narrow_float_is_rounded_once() -> None:
    just_above_a_tie = torch.tensor([1 + 2.0**-11 + 2.0**-40], dtype=torch.float64)
    (out,) = apply(Cast("F16"), [just_above_a_tie])
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
    (out,) = apply(Cast("F8_E4M3"), [torch.tensor([448.0, -448.0])])
    assert out.float().tolist() == [448.0, -448.0]


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64", "F8_E5M2"])
def test_infinity_and_nan_pass_between_floats(dtype: str) -> None:
    (cast,) = apply(Cast(dtype), [torch.tensor([INF, -INF, math.nan])])
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
    (out,) = apply(Cast("F32"), [torch.tensor([2**24])])
    assert out.tolist() == [2.0**24]
    refusal(torch.tensor([2**24 + 1]), "F32")


@pytest.mark.parametrize("value", [0.5, 2.0**63, -(2.0**64), INF, math.nan])
def test_a_float_that_is_no_integer_in_range_is_refused(value: float) -> None:
    refusal(torch.tensor([value]), "I64")


def test_whole_floats_become_integers() -> None:
    (out,) = apply(Cast("I64"), [torch.tensor([-(2.0**63), 3.0])])
    assert out.tolist() == [-(2**63), 3]


def test_booleans_are_zero_and_one() -> None:
    (out,) = apply(Cast("BOOL"), [torch.tensor([0, 1])])
    assert out.tolist() == [False, True]
    refusal(torch.tensor([2]), "BOOL")


# What a rule file lets saturate


def saturated(tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    (out,) = apply(Cast(dtype, "saturate", because="outliers of no weight"), [tensor])
    assert out.dtype == TORCH_DTYPES[dtype]
    return out


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [
        ("F16", 65504.0),
        ("BF16", (2 - 2.0**-7) * 2.0**127),
        ("F8_E4M3", 448.0),
        ("F8_E5M2", 57344.0),
        ("F8_E4M3FNUZ", 240.0),
        ("F8_E5M2FNUZ", 57344.0),
    ],
)
@pytest.mark.parametrize("source", [torch.float32, torch.float64, torch.bfloat16])
def test_beyond_the_range_saturates_where_the_rule_says_so(
    dtype: str, largest: float, source: torch.dtype
) -> None:
    far = torch.finfo(source).max
    tensor = torch.tensor([1.5, far, -far, -2.0], dtype=source)
    out = saturated(tensor, dtype).to(torch.float64)
    assert out.tolist() == [1.5, min(largest, far), -min(largest, far), -2.0]


def test_the_first_number_beyond_the_range_saturates() -> None:
    assert saturated(torch.tensor([65504.5, -65519.0, 65520.0]), "F16").tolist() == [
        65504.0,
        -65504.0,
        65504.0,
    ]


def test_nan_and_infinity_do_not_saturate() -> None:
    out = saturated(torch.tensor([INF, -INF, math.nan, 1e9]), "F16")
    assert out.tolist()[:2] == [INF, -INF]
    assert out[2].isnan()
    assert out[3] == 65504.0


def test_an_infinity_that_no_dtype_holds_is_refused_all_the_same() -> None:
    with pytest.raises(ValueRefusedError, match="1 of 3 values overflow F8_E4M3"):
        saturated(torch.tensor([-INF, math.nan, 1e9]), "F8_E4M3")


def test_integers_saturate_at_both_ends() -> None:
    assert saturated(torch.tensor([-(2**40), -128, 5, 127, 128]), "I8").tolist() == [
        -128,
        -128,
        5,
        127,
        127,
    ]
    assert saturated(torch.tensor([-1, 2**62]), "U32").tolist() == [0, 2**32 - 1]
    unsigned = torch.tensor([2**64 - 1, 7], dtype=torch.uint64)
    assert saturated(unsigned, "I64").tolist() == [2**63 - 1, 7]
    assert saturated(torch.tensor([True]), "I8").tolist() == [1]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("I64", [2**63 - 1, -(2**63), 3]), ("U64", [2**64 - 1, 0, 3]), ("I8", [127, -128, 3])],
)
def test_floats_saturate_to_the_very_last_integer(dtype: str, expected: list[int]) -> None:
    assert saturated(torch.tensor([1e30, -1e30, 3.0]), dtype).tolist() == expected


@pytest.mark.parametrize("value", [0.5, INF, math.nan])
def test_saturation_makes_no_integer_of_what_is_none(value: float) -> None:
    with pytest.raises(ValueRefusedError, match="1 of 2 values are no integers of I8"):
        saturated(torch.tensor([value, 1e9]), "I8")


def test_saturation_leaves_its_input_alone() -> None:
    for values in (torch.tensor([1e9]), torch.tensor([2**40])):
        before = values.clone()
        saturated(values, "I8")
        assert values.equal(before)


def test_what_saturates_cannot_be_undone() -> None:
    cast = Cast("I8", "saturate", "counters")
    assert cast.inverse((TensorSpec("I64", (4,)),)) is None
    assert Cast("F16", "saturate", "outliers").inverse((TensorSpec("F32", (4,)),)) is None


def test_an_integer_does_not_saturate_as_a_float() -> None:
    with pytest.raises(StepError, match="none saturates"):
        Cast("F16", "saturate", "large counters").infer((TensorSpec("I64", (4,)),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overflow": "saturate"}, "a reason"),
        ({"overflow": "saturate", "because": " "}, "a reason"),
        ({"because": "no use"}, "a reason"),
        ({"overflow": "wrap", "because": "it wraps"}, "no way to treat what overflows"),
        ({"dtype": "BOOL", "overflow": "saturate", "because": "flags"}, "booleans do not"),
    ],
)
def test_saturation_is_asked_for_with_a_reason_or_not_at_all(
    options: dict[str, str], message: str
) -> None:
    with pytest.raises(RuleError, match=message):
        Cast(**{"dtype": "F16", **options})


def test_a_refusal_says_how_a_rule_allows_it() -> None:
    for tensor, dtype in ((torch.tensor([1e9]), "F16"), (torch.tensor([300]), "I8")):
        with pytest.raises(ValueRefusedError) as caught:
            apply(Cast(dtype), [tensor])
        assert "overflow: saturate" in str(caught.value.findings[0].hint)


def test_a_cast_states_no_more_than_the_rule_file() -> None:
    assert step_parameters(Cast("BF16")) == {"dtype": "BF16"}
    assert step_parameters(Cast("F16", "saturate", "outliers")) == {
        "dtype": "F16",
        "overflow": "saturate",
        "because": "outliers",
    }


# What becomes zero


@pytest.mark.parametrize(
    ("dtype", "smallest"),
    [("F16", 2.0**-24), ("BF16", 2.0**-133), ("F8_E4M3", 2.0**-9), ("F8_E4M3FNUZ", 2.0**-10)],
)
def test_what_is_rounded_to_zero_is_counted(dtype: str, smallest: float) -> None:
    # Half of the smallest is a tie, which goes to the even zero.
    values = [0.0, -0.0, smallest, -smallest / 2, smallest / 4, smallest * 0.51, math.nan, 1.0]
    tensor = torch.tensor(values, dtype=torch.float64)
    assert flushed(dtype, tensor) == 2


def test_nothing_is_rounded_to_zero_by_an_exact_cast() -> None:
    for tensor, dtype in (
        (torch.tensor([2.0**-149, 0.0]), "F64"),
        (torch.tensor([0, 1]), "F16"),
        (torch.tensor([0.0, 1.0]), "U64"),
    ):
        assert flushed(dtype, tensor) == 0


@pytest.mark.parametrize(
    ("source", "target", "exact"),
    [
        ("BF16", "F32", True),
        ("F8_E4M3", "F16", True),
        ("F8_E4M3FNUZ", "F16", True),
        ("F8_E4M3FNUZ", "F8_E4M3", False),
        ("F8_E4M3", "F8_E4M3FNUZ", False),
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
