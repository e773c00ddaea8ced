import math

import pytest
import torch
from arrays import array_of, tensor_of
from torch import Tensor

from converter.steps import float64
from converter.steps.dtypes import FLOATS
from converter.torch_dtypes import TORCH_DTYPES

NARROW = ("F16", "BF16", "F8_E5M2", "F8_E4M3")


def to_float64(tensor: Tensor) -> Tensor:
    return tensor_of(float64.to_float64(array_of(tensor)))


def round_once(tensor: Tensor, dtype: str) -> Tensor:
    return tensor_of(float64.round_once(array_of(tensor), dtype))


def fixed_order_sum(tensor: Tensor, dim: int) -> Tensor:
    return tensor_of(float64.fixed_order_sum(array_of(tensor), dim))


def bits(tensor: Tensor) -> Tensor:
    """Return the bits of numbers of one or two bytes as integers that can be compared."""
    return tensor.contiguous().view(torch.uint8 if tensor.itemsize == 1 else torch.int16)


def magnitudes(dtype: str) -> Tensor:
    """Return all finite magnitudes of a narrow dtype in rising order, which is that of bits."""
    narrow = TORCH_DTYPES[dtype]
    codes = torch.arange(2 ** (8 * narrow.itemsize - 1)).to(
        torch.uint8 if narrow.itemsize == 1 else torch.int16
    )
    return codes.view(narrow)[
        : int((to_float64(codes.view(narrow)) <= FLOATS[dtype].largest).sum())
    ]


@pytest.mark.parametrize("dtype", NARROW)
def test_the_stated_limits_are_those_of_torch(dtype: str) -> None:
    values = to_float64(magnitudes(dtype))
    assert values[1] == FLOATS[dtype].smallest
    assert values[-1] == FLOATS[dtype].largest


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", NARROW)
def test_around_every_midpoint_the_nearest_number_is_chosen(dtype: str, sign: float) -> None:
    numbers = magnitudes(dtype)
    values = to_float64(numbers)
    ties = sign * (values[:-1] + values[1:]) / 2
    lower, upper = sign * values[:-1], sign * values[1:]
    even = torch.where(torch.arange(len(ties)) % 2 == 0, lower, upper)
    for points, nearest in (
        (torch.nextafter(ties, lower), lower),
        (ties, even),
        (torch.nextafter(ties, upper), upper),
    ):
        rounded = to_float64(round_once(points, dtype))
        assert torch.equal(rounded, nearest)
        assert torch.equal(rounded.signbit(), nearest.signbit())


@pytest.mark.parametrize("source", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("dtype", NARROW)
def test_a_narrower_float_rounds_as_the_same_number_in_float64(source: str, dtype: str) -> None:
    numbers = magnitudes("F16" if source == "F32" else source).to(TORCH_DTYPES[source])
    numbers = numbers[to_float64(numbers) <= FLOATS[dtype].largest]
    rounded = round_once(numbers, dtype)
    assert torch.equal(bits(rounded), bits(round_once(to_float64(numbers), dtype)))
    assert torch.equal(bits(rounded), bits(numbers.to(TORCH_DTYPES[dtype])))


@pytest.mark.parametrize("dtype", [*NARROW, "F32", "F64"])
def test_every_number_survives_float64_and_back(dtype: str) -> None:
    narrow = TORCH_DTYPES[dtype]
    numbers = magnitudes("F16").to(narrow) if dtype in ("F32", "F64") else magnitudes(dtype)
    back = round_once(to_float64(numbers), dtype)
    assert torch.equal(back.view(torch.uint8), numbers.view(torch.uint8))


def test_beyond_the_largest_float64_becomes_infinity_of_its_sign() -> None:
    huge = torch.tensor([1e300, -1e300], dtype=torch.float64)
    assert round_once(huge, "F16").tolist() == [math.inf, -math.inf]


def test_every_nan_becomes_the_one_quiet_nan() -> None:
    nans = torch.tensor([-1, 0x7F800001, 0x7FC00000], dtype=torch.int32).view(torch.float32)
    many = nans.repeat(20)
    assert bits(round_once(many, "BF16")).tolist() == [0x7FC0] * 60
    assert bits(round_once(many, "F16")).tolist() == [0x7E00] * 60
    assert bits(round_once(many, "F8_E4M3")).tolist() == [0x7F] * 60


def test_rounding_leaves_its_input_as_it_was() -> None:
    values = torch.tensor([1 + 2.0**-40, math.nan, 3e38], dtype=torch.float64)
    before = values.clone()
    round_once(values, "BF16")
    assert torch.equal(values.view(torch.int64), before.view(torch.int64))


@pytest.mark.parametrize("size", range(10))
def test_a_sum_holds_every_term_once(size: int) -> None:
    terms = (2.0 ** torch.arange(size)).to(torch.float64).expand(3, size)
    assert fixed_order_sum(terms, 1).tolist() == [2.0**size - 1] * 3


def test_a_sum_may_run_over_any_dim() -> None:
    values = torch.arange(24, dtype=torch.float64).reshape(2, 3, 4)
    for dim in range(3):
        assert torch.equal(fixed_order_sum(values, dim), values.sum(dim))


def test_the_order_of_a_sum_is_the_documented_one() -> None:
    one, big, small, minus = 1.0, 2.0**53, 1.0, -(2.0**53)
    values = torch.tensor([one, big, small, minus], dtype=torch.float64)
    assert fixed_order_sum(values, 0).item() == (one + small) + (big + minus)
