import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from converter.manifest import Statistics, TensorRecord
from converter.torch_dtypes import TORCH_DTYPES
from converter.values import BLOCK_ELEMENTS, bytes_of, disprove, statistics, suspicions


def of(tensor: Tensor) -> Statistics:
    stats = statistics(tensor)
    assert stats is not None
    return stats


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# Statistics


@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(max_dims=3, max_side=20),
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


# Bytes


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).view(2, 3).t(),
        torch.arange(6.0)[::5][:1],
        torch.tensor(7.0),
        torch.arange(4.0).view(1, 4)[:, 2:3],
        torch.empty(0, 2),
    ],
    ids=["transposed", "one of a stride", "scalar", "one inside", "empty"],
)
def test_bytes_are_in_row_major_order_whatever_the_strides(tensor: Tensor) -> None:
    assert bytes_of(tensor).numpy().tobytes() == tensor.numpy().tobytes()


# What a dropped tensor is said to be


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (2, 3), ()])
def test_a_ramp_counts_in_row_major_order(shape: tuple[int, ...]) -> None:
    count = torch.Size(shape).numel()
    ramp = torch.arange(count).view(shape)
    assert disprove("arange", ramp) is None
    if count:
        assert disprove("arange", ramp + 1) is not None


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (1, 2, 3, 3)])
def test_a_triangle_has_ones_on_and_below_the_diagonal(shape: tuple[int, ...]) -> None:
    ones = torch.ones(shape)
    assert disprove("lower_triangular", ones.tril()) is None
    assert disprove("lower_triangular", ones.tril(-1)) is not None
    assert disprove("lower_triangular", ones.triu()) is not None


# What looks wrong


def record(name: str, stats: Statistics | None, **changes: object) -> TensorRecord:
    fields = {"shape": (64, 64), "sha256": f"digest of {name}"} | changes
    return TensorRecord(name, "file", "F32", offset=0, size=0, stats=stats, **fields)  # type: ignore[arg-type]


def matrices(stds: Sequence[float], mean: float = 0.0) -> list[TensorRecord]:
    return [record(str(n), Statistics(mean, std, -1.0, 1.0)) for n, std in enumerate(stds)]


def codes(records: list[TensorRecord]) -> list[str]:
    return [finding.code for finding in suspicions(records)]


def test_matrices_with_one_common_std_look_initialised() -> None:
    assert codes(matrices([0.0200, 0.0201, 0.0202, 0.5])) == ["looks-initialised"]


@pytest.mark.parametrize(
    "records",
    [
        matrices([0.01, 0.02, 0.03, 0.04, 0.05]),
        matrices([0.02, 0.02, 0.5, 0.6]),
        matrices([0.02, 0.02, 0.02]),
        matrices([0.02] * 5, mean=0.01),
        matrices([0.0] * 5),
        [record(str(n), None) for n in range(5)],
        [record(str(n), Statistics(0.0, 0.02, -1, 1), shape=(31, 33)) for n in range(5)],
        [record(str(n), Statistics(0.0, 0.02, -1, 1), shape=(4096,)) for n in range(5)],
    ],
    ids=["apart", "half", "few", "off centre", "zeros", "no statistics", "small", "vectors"],
)
def test_trained_or_small_tensors_look_like_nothing(records: list[TensorRecord]) -> None:
    assert codes(records) == []


def test_equal_matrices_that_no_alias_declares_are_reported_once() -> None:
    twins = [
        record(name, Statistics(0.1, std, -1.0, 1.0), sha256=digest)
        for name, std, digest in (("a", 1.0, "x"), ("b", 2.0, "y"), ("c", 1.0, "x"))
    ]
    (finding,) = suspicions(twins)
    assert (finding.code, finding.tensor, finding.severity) == ("equal-tensors", "a, c", "warning")


def test_matrices_of_one_value_may_be_equal() -> None:
    assert codes([record(name, Statistics(1.0, 0.0, 1.0, 1.0), sha256="x") for name in "ab"]) == []
