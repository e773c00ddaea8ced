"""Orders of dims and rows, found in boxes however small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from numpy_files import cast, write

from converter import api, diff_elements, diff_order
from converter.diff_elements import mark_of_elements, mark_of_rows, moved_rows
from converter.diff_order import Order, find_cast_order, find_order
from converter.source import open_source
from converter.source.stored import Stored

Array = NDArray[Any]


@contextmanager
def tensors(folder: Path, *arrays: Array) -> Iterator[list[Stored]]:
    path = write(folder / "w.safetensors", {f"{n}": array for n, array in enumerate(arrays)})
    with open_source(path) as source:
        names = [f"{n}" for n in range(len(arrays))]
        yield [Stored(source, name, source.header[name]) for name in names]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything be done in many boxes and blocks of a few elements."""
    monkeypatch.setattr(diff_order, "BOX_BYTES", 48)
    monkeypatch.setattr(diff_order, "_PROBE_BYTES", 16)
    monkeypatch.setattr(diff_elements, "BLOCK_ELEMENTS", 4)


def found_order(folder: Path, here: Array, there: Array) -> Order | None:
    with tensors(folder, here, there) as (one, other):
        return find_order(one, other)


ramp = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("order", list(permutations(range(4)))[1:], ids=str)
def test_every_order_of_four_dims_is_found(tmp_path: Path, order: tuple[int, ...]) -> None:
    there = np.ascontiguousarray(ramp.transpose(order))
    assert found_order(tmp_path, ramp, there) == Order(dims=order)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 2, 0)], ids=str)
def test_one_element_that_differs_anywhere_is_no_order(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    here = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    for position in range(60):
        there = np.ascontiguousarray(here.transpose(order))
        there.reshape(-1)[position] = -1
        assert found_order(tmp_path, here, there) is None


@pytest.mark.usefixtures("small")
def test_rows_longer_than_a_block_may_be_permuted(tmp_path: Path) -> None:
    here = np.random.default_rng(0).standard_normal((6, 11))
    assert found_order(tmp_path, here, here[[0, 3, 2, 1, 5, 4]]) == Order(rows=4)


@pytest.mark.usefixtures("small")
def test_rows_of_which_the_columns_are_permuted_are_others(tmp_path: Path) -> None:
    here = np.random.default_rng(0).standard_normal((5, 7))
    assert found_order(tmp_path, here, here[:, ::-1].copy()) is None


@pytest.mark.usefixtures("small")
def test_a_cast_is_found_in_another_order(tmp_path: Path) -> None:
    here = np.random.default_rng(0).standard_normal((4, 5, 3)).astype(np.float32)
    there = np.ascontiguousarray(here.transpose(2, 0, 1))
    for dtype, rounded in (("F64", False), ("F16", True)):
        with tensors(tmp_path, here, cast(there, dtype)) as (one, other):
            assert find_cast_order(one, other) == (Order(dims=(2, 0, 1)), rounded)
    with tensors(tmp_path, here, cast(there + 1, "F64")) as (one, other):
        assert find_cast_order(one, other) is None


@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "U8", "C64", "BOOL"])
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 999), rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_marks_are_those_of_elements_and_rows_in_any_order(
    tmp_path: Path, dtype: str, seed: int, rows: int, columns: int
) -> None:
    generator = np.random.default_rng(seed)
    here = cast(generator.integers(0, 9, (rows, columns)), dtype)
    shuffled = generator.permutation(here.reshape(-1)).reshape(here.shape)
    turned = generator.permutation(here, axis=0)
    with tensors(tmp_path, here, shuffled, turned) as (one, other, third):
        marks = [mark_of_elements(tensor, lambda size: None) for tensor in (one, other, third)]
        assert marks[0] == marks[1] == marks[2]
        assert mark_of_rows(one, here.shape) == mark_of_rows(third, here.shape)
        same = sorted(row.tobytes() for row in here) == sorted(row.tobytes() for row in shuffled)
        assert (mark_of_rows(one, here.shape) == mark_of_rows(other, here.shape)) is same
        moved = sum(a.tobytes() != b.tobytes() for a, b in zip(here, turned, strict=True))
        assert moved_rows(one, third, here.shape) == moved


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_orders_that_were_not_tried_are_told(tmp_path: Path, dtype: str) -> None:
    here = np.random.default_rng(0).standard_normal((2,) * 6).astype(np.float32)
    there = cast(np.ascontiguousarray(here.transpose(5, 4, 3, 2, 1, 0)), dtype)
    one = write(tmp_path / "one.safetensors", {"w": here})
    other = write(tmp_path / "other.safetensors", {"w": there})
    (found,) = api.diff(one, other).entries
    assert found.kind == ("rearranged" if dtype == "F32" else "changed")
    assert found.note == "of the orders of so many dims only the first 24 were tried"


def test_all_orders_of_dims_of_many_lengths_are_tried(tmp_path: Path) -> None:
    here = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6, 7))
    order = (5, 3, 4, 1, 2, 0)
    there = np.ascontiguousarray(here.transpose(order))
    assert found_order(tmp_path, here, there) == Order(dims=order)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "I8"])
def test_a_mark_changes_with_any_element(tmp_path: Path, dtype: str) -> None:
    here = cast(np.arange(40), dtype)
    seen = set()
    for position in range(40):
        there = here.copy()
        there[position] = there[position - 1]
        with tensors(tmp_path, here, there) as (one, other):
            marks = [mark_of_elements(tensor, lambda size: None) for tensor in (one, other)]
            assert marks[0] != marks[1]
            seen.add(marks[1])
    assert len(seen) == 40
