"""Figures of two tensors: what they are, whatever the blocks that they are read in."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from numpy_files import cast, write

from converter import diff_values
from converter.diff_entry import Difference, Tolerance
from converter.diff_values import Apart, compare
from converter.source import open_source
from converter.source.stored import Stored

Array = NDArray[Any]


def apart(folder: Path, here: Array, there: Array, tolerance: Tolerance | None = None) -> Apart:
    paths = [
        write(folder / f"{name}.safetensors", {"w": array})
        for name, array in (("here", here), ("there", there))
    ]
    told: list[int] = []
    with open_source(paths[0]) as one, open_source(paths[1]) as other:
        tensors = [Stored(source, "w", source.header["w"]) for source in (one, other)]
        found = compare(tensors[0], tensors[1], tolerance or Tolerance(), told.append)
    assert sum(told) == here.nbytes + there.nbytes
    return found


def difference(folder: Path, here: Array, there: Array) -> Difference:
    return apart(folder, here, there).difference


@pytest.mark.parametrize("block", [1, 7, 1 << 17])
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E4M3", "I32", "I8", "U16"])
def test_the_figures_are_those_of_their_definitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, dtype: str
) -> None:
    monkeypatch.setattr(diff_values, "BLOCK_ELEMENTS", block)
    generator = np.random.default_rng(1)
    here = cast(generator.uniform(1, 100, (5, 9)), dtype)
    there = cast(here.astype(np.float64) + generator.integers(0, 3, (5, 9)), dtype)
    x, y = here.astype(np.float64).ravel(), there.astype(np.float64).ravel()
    found = difference(tmp_path, here, there)
    distance = np.abs(x - y)
    assert found.elements == 45
    assert found.differing == np.count_nonzero(x != y) > 0
    assert found.largest == distance.max()
    assert found.largest_relative == (distance / np.maximum(np.abs(x), np.abs(y))).max()
    assert found.mean == pytest.approx(distance.mean(), rel=1e-12)
    cosine = x @ y / np.sqrt((x @ x) * (y @ y))
    assert found.cosine == pytest.approx(cosine, rel=1e-12)


def test_nan_of_the_same_bits_are_equal_and_others_are_not(tmp_path: Path) -> None:
    here = np.array([np.nan, np.nan, 1, 2], np.float32)
    there = here.copy()
    assert difference(tmp_path, here, there).differing == 0
    there.view(np.uint32)[0] += 1
    found = difference(tmp_path, here, there)
    assert np.isnan(there[0])
    assert (found.differing, found.nonfinite, found.largest) == (1, 1, 0)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_counted_and_left_out_of_the_figures(
    tmp_path: Path, odd: float
) -> None:
    found = difference(tmp_path, np.array([odd, 1.0, 3.0]), np.array([5.0, 1.0, 4.0]))
    assert (found.differing, found.nonfinite, found.largest, found.mean) == (2, 1, 1, 0.5)


def test_an_infinity_on_both_sides_is_equal(tmp_path: Path) -> None:
    found = difference(tmp_path, np.array([np.inf, 1.0]), np.array([np.inf, 2.0]))
    assert (found.differing, found.nonfinite, found.largest) == (1, 0, 1)


def test_nothing_finite_has_no_mean_and_no_cosine(tmp_path: Path) -> None:
    found = difference(tmp_path, np.array([np.nan]), np.array([1.0]))
    assert (found.largest, found.mean, found.cosine) == (0, None, None)


def test_zeros_of_another_sign_differ_by_nothing(tmp_path: Path) -> None:
    found = difference(tmp_path, np.array([0.0, 1.0]), np.array([-0.0, 1.0]))
    assert (found.differing, found.largest, found.largest_relative) == (1, 0, 0)


def test_zeros_throughout_have_no_cosine(tmp_path: Path) -> None:
    found = difference(tmp_path, np.zeros(3), np.ones(3))
    assert (found.cosine, found.largest_relative) == (None, 1)


def test_opposite_values_have_the_cosine_minus_one(tmp_path: Path) -> None:
    here = np.array([1.0, -2.0, 3.0])
    assert difference(tmp_path, here, -here).cosine == pytest.approx(-1)


def test_what_a_double_cannot_hold_is_no_figure(tmp_path: Path) -> None:
    found = difference(tmp_path, np.array([1.7e308]), np.array([-1.7e308]))
    assert (found.largest, found.largest_relative, found.cosine) == (None, None, None)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_integers_of_64_bits_are_not_rounded_before_they_are_compared(
    tmp_path: Path, dtype: Any
) -> None:
    here = np.array([2**62, 5], dtype)
    there = np.array([2**62 + 3, 5], dtype)
    assert difference(tmp_path, here, there).largest == 3


def test_the_distance_of_the_integers_farthest_apart_is_right(tmp_path: Path) -> None:
    ends = np.array([-(2**63)]), np.array([2**63 - 1])
    assert difference(tmp_path, *ends).largest == 2.0**64


def test_integers_and_floats_are_equal_only_as_the_same_number(tmp_path: Path) -> None:
    here = np.array([2**53 + 1, 2**60, 7])
    there = np.array([2.0**53, 2.0**60, 7.0])
    assert difference(tmp_path, here, there).differing == 1
    assert difference(tmp_path, there, here).differing == 1
    assert not apart(tmp_path, here, there).same
    assert apart(tmp_path, here[1:], there[1:]).same


def test_nan_of_two_dtypes_are_both_no_number(tmp_path: Path) -> None:
    here = np.array([np.nan, 1.5], np.float32)
    assert apart(tmp_path, here, here.astype(np.float64)).same


def test_values_that_were_rounded_are_known_whichever_side_is_narrower(tmp_path: Path) -> None:
    here = np.random.default_rng(0).standard_normal(100)
    for one, other in ((here, cast(here, "BF16")), (cast(here, "BF16"), here)):
        found = apart(tmp_path, one, other)
        assert (found.same, found.rounded) == (False, True)
    nudged = cast(here, "BF16")
    nudged.view(np.uint16)[50] += 1
    assert not apart(tmp_path, here, nudged).rounded


@pytest.mark.parametrize("position", [0, 50, 99])
def test_one_value_that_was_not_rounded_is_enough_in_any_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    monkeypatch.setattr(diff_values, "BLOCK_ELEMENTS", 10)
    here = np.random.default_rng(0).standard_normal(100)
    there = cast(here, "F16")
    assert apart(tmp_path, here, there).rounded
    there.view(np.uint16)[position] += 1
    assert not apart(tmp_path, here, there).rounded


def test_a_tensor_may_be_another_in_order_only_with_the_same_extremes(tmp_path: Path) -> None:
    here = np.array([1.0, np.nan, 3.0, 2.0])
    assert apart(tmp_path, here, here[::-1].copy()).alike
    assert not apart(tmp_path, here, here * 2).alike


@pytest.mark.parametrize(("atol", "rtol", "beyond"), [(0, 0, 2), (1, 0, 1), (0, 0.5, 0)])
def test_what_is_beyond_the_tolerance_is_counted(
    tmp_path: Path, atol: float, rtol: float, beyond: int
) -> None:
    here, there = np.array([2.0, 10.0, 4.0]), np.array([3.0, 13.0, 4.0])
    found = apart(tmp_path, here, there, Tolerance(atol, rtol)).difference
    assert found.beyond == beyond


def test_all_figures_are_numbers_that_json_has(tmp_path: Path) -> None:
    here = np.array([np.inf, 1e308, 5e-324, -1e308, np.nan])
    found = difference(tmp_path, here, here[::-1].copy())
    for figure in (found.largest, found.largest_relative, found.mean, found.cosine):
        assert figure is None or math.isfinite(figure)
