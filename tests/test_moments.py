import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from arrays import array_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from torch import Tensor

from converter.manifest import Statistics
from converter.moments import BLOCK_ELEMENTS, StatisticsStream
from converter.steps.float64 import fixed_order_sum
from converter.torch_dtypes import SAFETENSORS_DTYPES, TORCH_DTYPES
from converter.values import bytes_of


def statistics(tensor: Tensor) -> Statistics | None:
    stream = StatisticsStream(SAFETENSORS_DTYPES[tensor.dtype])
    stream.add(bytes_of(array_of(tensor)))
    return stream.result()


def of(tensor: Tensor) -> Statistics:
    stats = statistics(tensor)
    assert stats is not None
    return stats


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@given(
    numpy_strategies.arrays(
        np.float32,
        numpy_strategies.array_shapes(max_dims=3, max_side=20),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_statistics_are_those_of_numpy_in_float64(array: np.ndarray) -> None:
    stats, wide = of(torch.from_numpy(array)), array.astype(np.float64)
    magnitude = np.abs(wide).max()
    assert (stats.min, stats.max, stats.nonfinite) == (wide.min(), wide.max(), 0)
    assert stats.mean == pytest.approx(wide.mean(), rel=1e-12, abs=1e-12 * magnitude)
    assert stats.std == pytest.approx(wide.std(), rel=1e-12, abs=1e-12 * magnitude)


@pytest.mark.parametrize(
    "size", [1, BLOCK_ELEMENTS - 1, BLOCK_ELEMENTS, BLOCK_ELEMENTS + 1, 3 * BLOCK_ELEMENTS + 7]
)
def test_blocks_of_any_number_agree_with_numpy(size: int) -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size).astype(np.float32)
    stats, wide = of(torch.from_numpy(values)), values.astype(np.float64)
    assert stats.mean == pytest.approx(wide.mean(), rel=1e-12)
    assert stats.std == pytest.approx(wide.std(), rel=1e-12)
    assert (stats.min, stats.max) == (wide.min(), wide.max())


@pytest.mark.parametrize("shift", [1e4, 1e6])
def test_a_mean_far_from_zero_costs_no_precision(shift: float) -> None:
    values = torch.randn(300_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert of(values + shift).std == pytest.approx((values + shift).numpy().std(), rel=1e-12)


@pytest.mark.usefixtures("threads")
def test_statistics_are_the_same_bits_for_any_number_of_threads() -> None:
    values = torch.randn(1000, 777, generator=torch.Generator().manual_seed(1))
    found = set()
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        found.add(of(values))
    assert len(found) == 1


def test_statistics_are_of_the_values_not_of_their_layout() -> None:
    matrix = torch.arange(12.0).view(3, 4)
    assert of(matrix.t()) == of(matrix.t().contiguous())


@pytest.mark.parametrize(
    "dtype", [name for name in TORCH_DTYPES if name not in ("BOOL", "C64", "F8_E8M0")]
)
def test_every_dtype_of_numbers_has_statistics(dtype: str) -> None:
    assert of(torch.tensor([1, 2, 3, 2]).to(TORCH_DTYPES[dtype])) == Statistics(
        mean=2.0, std=math.sqrt(0.5), min=1.0, max=3.0
    )


def test_powers_of_two_without_a_sign_have_statistics_too() -> None:
    assert of(torch.tensor([1.0, 4.0]).to(torch.float8_e8m0fnu)).mean == 2.5


@pytest.mark.parametrize("largest", [1e160, 1.7e308])
def test_values_whose_squares_overflow_have_finite_statistics(largest: float) -> None:
    stats = of(torch.tensor([largest, -largest, largest, -largest], dtype=torch.float64))
    assert (stats.mean, stats.min, stats.max) == (0.0, -largest, largest)
    assert stats.std == pytest.approx(largest, rel=1e-15)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    values = torch.tensor([1.0, torch.nan, 3.0, torch.inf, -torch.inf])
    assert of(values) == Statistics(mean=2.0, std=1.0, min=1.0, max=3.0, nonfinite=3)


def test_nothing_finite_gives_zeros() -> None:
    assert of(torch.full((3,), torch.nan)) == Statistics(0.0, 0.0, 0.0, 0.0, nonfinite=3)


def test_of_equal_zeros_none_is_the_negative_one() -> None:
    for values in ([-0.0, 0.0], [0.0, -0.0], [-0.0, -0.0]):
        stats = of(torch.tensor(values))
        assert math.copysign(1, stats.min) == math.copysign(1, stats.max) == 1.0


@pytest.mark.parametrize(
    "tensor", [torch.empty(0, 3), torch.tensor([True]), torch.tensor([1j])], ids=str
)
def test_what_has_no_order_or_no_values_has_no_statistics(tensor: Tensor) -> None:
    assert statistics(tensor) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64])
def test_blocks_added_one_by_one_or_at_once_give_the_same_bits(dtype: torch.dtype) -> None:
    values = torch.randn(2 * BLOCK_ELEMENTS + 9, generator=torch.Generator().manual_seed(2)) * 50
    data = bytes_of(array_of(values.to(dtype)))
    stream = StatisticsStream(SAFETENSORS_DTYPES[dtype])
    for begin in range(0, len(data), BLOCK_ELEMENTS * dtype.itemsize):
        stream.add(data[begin : begin + BLOCK_ELEMENTS * dtype.itemsize])
    assert stream.result() == of(values.to(dtype))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 1000, 4097, BLOCK_ELEMENTS])
def test_a_mean_is_the_sum_in_the_one_fixed_order(count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(3))
    assert of(values).mean == fixed_order_sum(values.double().numpy(), 0).item() / count


def test_what_is_not_finite_in_complex_numbers_is_counted() -> None:
    stream = StatisticsStream("C64")
    numbers = torch.tensor([1 + 1j, complex(0, math.nan), complex(math.inf, 0)])
    stream.add(bytes_of(array_of(numbers)))
    assert (stream.nonfinite, stream.result()) == (2, None)
