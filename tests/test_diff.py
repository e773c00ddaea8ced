"""Two checkpoints compared: each finding on the smallest tensors that have it."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from numpy_files import Arrays, Raw, cast, write
from toy import convert, toy_tensors

from converter import api, diff_order
from converter.diff_entry import Comparison, Entry
from converter.errors import SourceError, UsageError
from converter.spec import TensorSpec

Array = NDArray[Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def compared(folder: Path, here: Arrays, there: Arrays, **options: Any) -> Comparison:
    one = write(folder / "here.safetensors", here)
    other = write(folder / "there.safetensors", there)
    return api.diff(one, other, **options)


def entries(folder: Path, here: Arrays, there: Arrays, **options: Any) -> list[Entry]:
    return list(compared(folder, here, there, **options).entries)


def entry(folder: Path, here: Array | Raw, there: Array | Raw, **options: Any) -> Entry:
    """Return what is found of one tensor, ``w``, on both sides."""
    (found,) = entries(folder, {"w": here}, {"w": there}, **options)
    assert (found.here, found.there) == (("w",), ("w",))
    return found


# Under one name


@pytest.mark.parametrize(
    "array",
    [
        floats(3, 4),
        floats(),
        np.empty((0, 3), np.float32),
        np.array([True, False]),
        np.array([np.nan, np.inf], np.float32),
        np.array([1 + 2j], np.complex64),
        Raw(TensorSpec("F4", (4,)), b"\x12\x34"),
    ],
    ids=lambda array: str(getattr(array, "dtype", "raw")),
)
def test_the_same_bytes_are_equal(folder: Path, array: Array | Raw) -> None:
    assert entry(folder, array, array).kind == "equal"


def test_the_same_bytes_in_another_shape_are_reshaped(folder: Path) -> None:
    assert entry(folder, floats(4, 6), floats(4, 6).reshape(2, 3, 4)).kind == "reshaped"


@pytest.mark.parametrize("shape", [(4, 6), (5, 5), (4, 1, 6), (1, 7, 2)])
def test_a_matrix_is_told_to_be_transposed(folder: Path, shape: tuple[int, ...]) -> None:
    here = floats(*shape)
    order = sorted(range(len(shape)), key=lambda dim: -dim)
    found = entry(folder, here, np.ascontiguousarray(here.transpose(order)))
    assert found.kind == "transposed"
    assert here.transpose(found.dims).tobytes() == here.transpose(order).tobytes()


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
@pytest.mark.parametrize("dtype", ["F32", "BF16", "I64", "U8", "C64", "F8_E4M3"])
def test_any_order_of_dims_is_told(folder: Path, order: tuple[int, ...], dtype: str) -> None:
    here = cast(floats(3, 4, 5) * 20, dtype)
    found = entry(folder, here, np.ascontiguousarray(here.transpose(order)))
    assert (found.kind, found.dims) == ("transposed", order)


def test_a_transposed_matrix_of_one_dim_more_is_told_by_its_long_dims(folder: Path) -> None:
    here = floats(4, 6)
    found = entry(folder, here, np.ascontiguousarray(here.T)[:, :, None])
    assert (found.kind, found.dims) == ("transposed", (1, 0))


def test_permuted_rows_are_told_with_their_number(folder: Path) -> None:
    here = floats(6, 3)
    found = entry(folder, here, here[[1, 0, 2, 3, 5, 4]])
    assert (found.kind, found.rows) == ("rows-permuted", 4)


def test_rows_that_stand_there_twice_may_be_permuted_too(folder: Path) -> None:
    here = floats(3, 3)[[0, 0, 1, 2]]
    assert entry(folder, here, here[[0, 1, 3, 2]]).rows == 2
    assert entry(folder, here, floats(3, 3)[[0, 1, 1, 2]]).kind == "changed"


def test_a_permuted_vector_has_permuted_rows(folder: Path) -> None:
    here = floats(5)
    found = entry(folder, here, here[[4, 1, 2, 3, 0]])
    assert (found.kind, found.rows) == ("rows-permuted", 2)


def test_permuted_columns_are_the_same_elements_in_another_order(folder: Path) -> None:
    here = floats(5, 3)
    assert entry(folder, here, here[:, [2, 0, 1]].copy()).kind == "rearranged"


def test_other_elements_with_the_same_extremes_are_changed(folder: Path) -> None:
    here = np.array([[0, 1, 5], [2, 3, 9]], np.float32)
    there = np.array([[0, 1, 4], [2, 3, 9]], np.float32)
    assert entry(folder, here, there).kind == "changed"


@pytest.mark.parametrize("dtype", ["F64", "F16", "BF16"])
def test_a_wider_dtype_of_the_same_values_is_a_cast(folder: Path, dtype: str) -> None:
    here = cast(np.arange(12).reshape(3, 4) / 4, "F32")
    found = entry(folder, here, cast(here, dtype))
    assert (found.kind, found.rounded) == ("cast", False)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("wide", ["F32", "F64"])
def test_a_narrower_dtype_of_rounded_values_is_a_cast(folder: Path, dtype: str, wide: str) -> None:
    here = cast(floats(64), "F32").astype(np.float64 if wide == "F64" else np.float32)
    found = entry(folder, here, cast(here, dtype))
    assert (found.kind, found.rounded) == ("cast", True)


def test_integers_as_floats_are_a_cast_where_they_are_the_same_numbers(folder: Path) -> None:
    here = np.array([0, 1, 2**53, 2**60])
    assert entry(folder, here, here.astype(np.float64)).rounded is False
    more = here + np.array([0, 0, 1, 0])
    assert entry(folder, more, here.astype(np.float64)).rounded is True
    found = entry(folder, more + np.array([0, 0, 2, 0]), here.astype(np.float64))
    assert found.kind == "changed"
    assert found.difference is not None
    assert found.difference.differing == 1


def test_truncated_values_are_no_rounded_ones(folder: Path) -> None:
    here = floats(64)
    cut = (here.view(np.uint32) >> 16).astype(np.uint16).view(cast(here, "BF16").dtype)
    found = entry(folder, here, cut)
    assert found.kind == "changed"
    assert found.difference is not None
    assert found.difference.largest_relative == pytest.approx(2**-7, rel=0.1)


@pytest.mark.parametrize(("dtype", "rounded"), [("F64", False), ("BF16", True)])
@pytest.mark.parametrize("shape", [(4, 6), (5, 5)])
def test_a_transposed_matrix_may_be_cast_too(
    folder: Path, shape: tuple[int, int], dtype: str, rounded: bool
) -> None:
    here = floats(*shape)
    found = entry(folder, here, cast(np.ascontiguousarray(here.T), dtype))
    assert (found.kind, found.dims, found.rounded) == ("transposed", (1, 0), rounded)


def test_a_change_of_shape_alone_is_no_change_of_values(folder: Path) -> None:
    found = entry(folder, floats(4, 3), floats(3, 4, seed=1))
    assert (found.kind, found.difference) == ("changed", None)
    assert found.note is not None
    assert entry(folder, floats(4), floats(5)).kind == "changed"


def test_dims_of_one_do_not_keep_values_from_being_compared(folder: Path) -> None:
    found = entry(folder, floats(4, 1), floats(4) + np.float32(1))
    assert found.difference is not None
    assert found.difference.largest == pytest.approx(1)


def test_elements_of_less_than_a_byte_go_by_their_bytes(folder: Path) -> None:
    spec = TensorSpec("F4", (2, 2))
    found = entry(folder, Raw(spec, b"\x12\x34"), Raw(spec, b"\x12\x35"))
    assert (found.kind, found.difference) == ("changed", None)
    assert "less than a byte" in (found.note or "")


def test_empty_tensors_differ_in_shape_or_dtype_alone(folder: Path) -> None:
    empty = np.empty((0, 4), np.float32)
    assert entry(folder, empty, empty.astype(np.float16)).kind == "cast"
    assert entry(folder, empty, empty.reshape(4, 0)).kind == "reshaped"
    assert entry(folder, empty, np.empty((4, 0), np.float16)).kind == "changed"
    assert entry(folder, empty, floats(1, 4)).kind == "changed"


def test_complex_values_are_compared_by_their_parts(folder: Path) -> None:
    here = np.array([1 + 2j, 3 + 4j], np.complex64)
    found = entry(folder, here, here + np.complex64(1j)).difference
    assert found is not None
    assert (found.elements, found.differing, found.largest) == (4, 2, 1)
    assert entry(folder, here, here.real.copy()).kind == "changed"


def test_a_byte_of_a_boolean_that_is_none_is_a_change(folder: Path) -> None:
    spec = TensorSpec("BOOL", (2,))
    found = entry(folder, Raw(spec, b"\x01\x00"), Raw(spec, b"\x02\x00"))
    assert found.difference is not None
    assert (found.kind, found.difference.largest) == ("changed", 1)


# Tolerance


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, "changed"),
        ({"atol": 0.25}, "within"),
        ({"atol": 0.24}, "changed"),
        ({"rtol": 0.0625}, "within"),
        ({"rtol": 0.0624}, "changed"),
        ({"atol": 0.125, "rtol": 0.03125}, "within"),
    ],
    ids=str,
)
def test_a_tolerance_makes_tiny_differences_no_difference(
    folder: Path, options: Mapping[str, float], kind: str
) -> None:
    here, there = np.array([4.0, 8.0]), np.array([3.75, 8.0])
    found = compared(folder, {"w": here}, {"w": there}, **options)
    assert [item.kind for item in found.entries] == [kind]
    assert found.differs is (kind == "changed")
    assert found.entries[0].difference is not None


def test_a_tolerance_does_not_bridge_nan_or_infinity(folder: Path) -> None:
    here = np.array([1.0, np.nan, np.inf])
    for position in (1, 2):
        there = here.copy()
        there[position] = 1
        assert entry(folder, here, there, atol=1e300).kind == "changed"


def test_a_tolerance_does_not_bridge_shapes(folder: Path) -> None:
    assert entry(folder, floats(4), floats(4, 1) + np.float32(0.1), atol=1).kind == "changed"


def test_a_tolerance_does_not_bridge_dtypes(folder: Path) -> None:
    found = compared(folder, {"w": floats(3)}, {"w": cast(floats(3), "F64")}, atol=1)
    assert found.differs


@pytest.mark.parametrize(
    "options",
    [{"atol": -1.0}, {"rtol": float("nan")}, {"atol": float("inf")}, {"level": "fast"}],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        compared(folder, {}, {}, **options)


# Under other names


def pairs(found: list[Entry]) -> set[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return {(item.kind, item.here, item.there) for item in found}


def test_the_same_bytes_under_another_name_are_renamed(folder: Path) -> None:
    found = entries(folder, {"a": floats(3), "b": floats(2)}, {"c": floats(3), "b": floats(2)})
    assert pairs(found) == {("renamed", ("a",), ("c",)), ("equal", ("b",), ("b",))}


def test_tensors_that_changed_places_are_renamed_both_ways(folder: Path) -> None:
    one, other = floats(4), floats(4, seed=1)
    found = entries(folder, {"q": one, "k": other}, {"q": other, "k": one})
    assert pairs(found) == {("renamed", ("q",), ("k",)), ("renamed", ("k",), ("q",))}


def test_blocks_that_moved_by_one_say_who_has_their_name(folder: Path) -> None:
    blocks = [floats(4, seed=seed) for seed in range(4)]
    here = {f"{i}.w": blocks[i] for i in range(3)}
    there = {f"{i}.w": blocks[i + 1] for i in range(3)}
    found = {item.here + item.there: item for item in entries(folder, here, there)}
    assert {key: item.kind for key, item in found.items()} == {
        ("1.w", "0.w"): "renamed",
        ("2.w", "1.w"): "renamed",
        ("0.w",): "only-here",
        ("2.w",): "only-there",
    }
    assert found["0.w",].note == "what bears its name there is 1.w on this side"
    assert found["2.w",].note == "what bears its name here is 1.w on this side"


def test_bytes_that_several_tensors_have_are_listed_and_not_guessed(folder: Path) -> None:
    same = floats(3)
    found = entries(folder, {"a": same, "b": same}, {"c": same, "d": same})
    assert pairs(found) == {("ambiguous", ("a", "b"), ("c", "d"))}


def test_bytes_that_a_settled_tensor_has_too_are_not_guessed(folder: Path) -> None:
    same = floats(3)
    found = entries(folder, {"a": same, "b": same}, {"a": same, "c": same})
    assert pairs(found) == {("equal", ("a",), ("a",)), ("ambiguous", ("b",), ("c",))}


@pytest.mark.parametrize("value", [np.zeros(4), np.ones((2, 2)), np.array(7), np.array([3.5])])
def test_one_value_throughout_does_not_tell_what_a_tensor_is(folder: Path, value: Array) -> None:
    (found,) = entries(folder, {"x.bias": value}, {"y.scale": value})
    assert found.kind == "ambiguous"
    assert "one value" in (found.note or "")


def test_zeros_that_were_changed_are_not_looked_for_elsewhere(folder: Path) -> None:
    zeros = np.zeros(4)
    found = entries(folder, {"x": zeros, "y": zeros}, {"x": zeros, "y": zeros + 1, "z": zeros})
    assert pairs(found) == {
        ("equal", ("x",), ("x",)),
        ("changed", ("y",), ("y",)),
        ("only-there", (), ("z",)),
    }


def test_empty_tensors_have_nothing_to_be_known_by(folder: Path) -> None:
    found = entries(folder, {"a": np.empty((0, 2))}, {"b": np.empty((0, 2))})
    assert pairs(found) == {("only-here", ("a",), ()), ("only-there", (), ("b",))}


def test_the_same_bytes_in_another_dtype_are_not_renamed(folder: Path) -> None:
    array = floats(4)
    found = entries(folder, {"a": array}, {"b": array.view(np.int32)})
    assert {item.kind for item in found} == {"only-here", "only-there"}


def test_a_renamed_tensor_may_be_in_another_shape(folder: Path) -> None:
    found = entries(folder, {"a": floats(4, 2)}, {"b": floats(4, 2).reshape(8)})
    assert pairs(found) == {("renamed", ("a",), ("b",))}


def test_a_renamed_tensor_may_be_transposed_or_of_permuted_rows(folder: Path) -> None:
    wide, tall = floats(4, 6), floats(7, 3)
    found = entries(
        folder,
        {"a": wide, "b": tall, "c": floats(24, seed=3), "d": floats(21, seed=4)},
        {"x": np.ascontiguousarray(wide.T), "y": tall[::-1].copy(), "z": floats(24, seed=5)},
    )
    assert pairs(found) == {
        ("transposed", ("a",), ("x",)),
        ("rows-permuted", ("b",), ("y",)),
        ("only-here", ("c",), ()),
        ("only-here", ("d",), ()),
        ("only-there", (), ("z",)),
    }


def test_the_same_elements_of_several_tensors_are_listed_and_not_guessed(folder: Path) -> None:
    array = floats(4, 6)
    flipped = array[::-1].copy()
    found = entries(folder, {"a": array, "b": flipped}, {"x": np.ascontiguousarray(array.T)})
    assert pairs(found) == {("ambiguous", ("a", "b"), ("x",))}


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F64"])
def test_a_renamed_tensor_may_be_cast(folder: Path, dtype: str) -> None:
    here = floats(4, 6)
    for one, other in ((here, cast(here, dtype)), (cast(here, dtype), here)):
        (found,) = entries(folder, {"a": one}, {"b": other})
        assert (found.kind, found.rounded) == ("cast", dtype != "F64")


def test_zeros_in_another_dtype_are_listed_and_not_guessed(folder: Path) -> None:
    zeros = np.zeros(4, np.float32)
    found = entries(
        folder, {"a": zeros, "b": zeros}, {"c": cast(zeros, "F16"), "d": cast(zeros, "F16")}
    )
    assert pairs(found) == {("ambiguous", ("a", "b"), ("c", "d"))}
    found = entries(folder, {"a": zeros}, {"c": cast(zeros, "F16")})
    assert pairs(found) == {("ambiguous", ("a",), ("c",))}


def test_many_zeros_in_another_dtype_are_one_group(folder: Path) -> None:
    zeros = np.zeros(4, np.float32)
    here = {f"a.{i}": zeros for i in range(500)}
    (found,) = entries(folder, here, {f"b.{i}": cast(zeros, "BF16") for i in range(500)})
    assert (found.kind, len(found.here), len(found.there)) == ("ambiguous", 500, 500)


# Whole checkpoints


def test_an_empty_checkpoint_equals_itself_and_nothing_else(folder: Path) -> None:
    assert not compared(folder, {}, {}).differs
    assert pairs(entries(folder, {}, {"a": floats(1)})) == {("only-there", (), ("a",))}


def test_entries_are_in_the_order_of_the_tensors(folder: Path) -> None:
    arrays = {f"w{seed}": floats(64, seed=seed) for seed in (3, 1, 2)}
    found = entries(folder, arrays, {**arrays, "w1": floats(64), "w0": floats(64, seed=9)})
    assert [item.here or item.there for item in found] == [("w3",), ("w1",), ("w2",), ("w0",)]


def test_the_number_of_workers_changes_nothing(folder: Path) -> None:
    here = {f"w{seed}": floats(40, 30, seed=seed) for seed in range(8)}
    there = {name: array + np.float32(0.1) for name, array in here.items()}
    found = [compared(folder, here, there, jobs=jobs) for jobs in (1, 4)]
    assert found[0] == found[1]


def test_memory_does_not_grow_with_the_tensors(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diff_order, "BOX_BYTES", 1 << 20)
    one, other = floats(1536, 2048, seed=1), floats(1536, 2048, seed=2)
    here = {"changed": one, "turned": other, "rows": one[::-1].copy(), "cast": one + other}
    there = {
        "changed": one + np.float32(0.5),
        "turned": np.ascontiguousarray(other.T),
        "rows": np.roll(one, 7, axis=0),
        "halved": cast(one + other, "F16"),
    }
    write(folder / "here.safetensors", here)
    write(folder / "there.safetensors", there)
    assert one.nbytes == 12 << 20
    tracemalloc.start()
    found = api.diff(folder / "here.safetensors", folder / "there.safetensors", jobs=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    kinds = {item.kind for item in found.entries}
    assert kinds == {"changed", "transposed", "rows-permuted", "cast"}
    assert peak < one.nbytes


def test_progress_ends_at_its_total(folder: Path) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def progress(what: str) -> Any:
        yield lambda done, total: told.setdefault(what, []).append((done, total))

    here = {"a": floats(300, 10), "b": floats(30)}
    there = {"a": floats(300, 10, seed=1), "c": floats(30, seed=1)}
    compared(folder, here, there, progress=progress)
    assert list(told) == ["hashing", "comparing"]
    for calls in told.values():
        assert sum(done for done, _ in calls) == calls[-1][1] > 0


def test_a_sharded_checkpoint_equals_one_file(folder: Path) -> None:
    convert(folder, toy_tensors())
    (folder / "out").rename(folder / "whole")
    convert(folder, toy_tensors(), max_shard_size="200")
    assert len(list((folder / "out").glob("*.safetensors"))) > 2
    found = api.diff(folder / "whole", folder / "out")
    assert not found.differs
    index = folder / "out" / "model.safetensors.index.json"
    assert not api.diff(folder / "whole" / "model.safetensors", index).differs


# Properties

DTYPES = ("F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F64")


@st.composite
def checkpoints(draw: st.DrawFn) -> dict[str, Array]:
    """Checkpoints of a few small tensors, among them equal, constant, empty and odd ones."""
    count = draw(st.integers(0, 5))
    arrays = {}
    for number in range(count):
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        values = draw(st.sampled_from(["zeros", "few", "many", "odd"]))
        generator = np.random.default_rng(draw(st.integers(0, 3)))
        array = {
            "zeros": np.zeros(shape),
            "few": generator.integers(0, 2, shape).astype(np.float64),
            "many": generator.standard_normal(shape) * 9,
            "odd": generator.choice([np.nan, 1.0, -0.0, 0.0], shape),
        }[values]
        with np.errstate(all="ignore"):
            arrays[f"w.{number}"] = cast(np.asarray(array), draw(st.sampled_from(DTYPES)))
    return arrays


many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@many
@given(arrays=checkpoints())
def test_a_checkpoint_equals_itself(folder: Path, arrays: dict[str, Array]) -> None:
    found = compared(folder, arrays, arrays)
    assert not found.differs
    assert {item.kind for item in found.entries} <= {"equal"}
    assert len(found.entries) == len(arrays)


@many
@given(here=checkpoints(), there=checkpoints())
def test_the_other_way_round_everything_is_mirrored(
    folder: Path, here: dict[str, Array], there: dict[str, Array]
) -> None:
    found = entries(folder, here, there)
    back = entries(folder, there, here)
    assert {_sides(item) for item in found} == {_sides(item, mirrored=True) for item in back}


def _sides(entry: Entry, *, mirrored: bool = False) -> tuple[object, ...]:
    """Return what must be the same from both sides; of several fitting orders one is told."""
    names: list[object] = [frozenset(entry.here), frozenset(entry.there)]
    kind: str = entry.kind
    if mirrored:
        names.reverse()
        kind = {"only-here": "only-there", "only-there": "only-here"}.get(kind, kind)
    return kind, *names, entry.rows, entry.rounded, entry.difference


@many
@given(here=checkpoints(), there=checkpoints())
def test_every_tensor_is_in_one_entry(
    folder: Path, here: dict[str, Array], there: dict[str, Array]
) -> None:
    found = entries(folder, here, there)
    assert sorted(name for item in found for name in item.here) == sorted(here)
    assert sorted(name for item in found for name in item.there) == sorted(there)
    for item in found:
        if item.kind == "equal":
            assert item.here == item.there
            assert here[item.here[0]].tobytes() == there[item.there[0]].tobytes()
        if item.kind in ("renamed", "reshaped"):
            assert here[item.here[0]].tobytes() == there[item.there[0]].tobytes()
        if item.kind == "transposed" and item.rounded is None:
            one, other = here[item.here[0]], there[item.there[0]]
            order = item.dims if len(item.dims) == one.ndim else None
            assert order is None or one.transpose(order).tobytes() == other.tobytes()


@many
@given(
    shape=st.lists(st.integers(2, 5), min_size=2, max_size=4),
    seed=st.integers(0, 99),
    how=st.sampled_from(["renamed", "reshaped", "transposed", "rows-permuted", "cast", "changed"]),
    renamed=st.booleans(),
    data=st.data(),
)
def test_what_was_done_to_a_tensor_is_told(
    folder: Path, shape: list[int], seed: int, how: str, renamed: bool, data: st.DataObject
) -> None:
    here = floats(*shape, seed=seed)
    if how == "renamed":
        there, renamed = here, True
    elif how == "reshaped":
        there, renamed = here.reshape(-1, 1), False
    elif how == "transposed":
        orders = st.permutations(range(len(shape))).filter(
            lambda order: list(order) != sorted(order)
        )
        there = np.ascontiguousarray(here.transpose(data.draw(orders)))
    elif how == "rows-permuted":
        rows = st.permutations(range(shape[0])).filter(lambda order: list(order) != sorted(order))
        there = here[data.draw(rows)]
    elif how == "cast":
        there = cast(here, data.draw(st.sampled_from(["F64", "F16", "BF16"])))
    else:
        there, renamed = here + np.float32(1), False
    name = "new" if renamed else "old"
    found = entries(folder, {"old": here}, {name: there})
    assert pairs(found) == {(how, ("old",), (name,))}
    if how == "transposed":
        assert here.transpose(found[0].dims).tobytes() == there.tobytes()


# What cannot be compared


@pytest.mark.parametrize("data", [b"", b"PK", b"\x08\0\0\0\0\0\0\0{}      junk"])
def test_a_malformed_file_is_refused_on_either_side(folder: Path, data: bytes) -> None:
    good = write(folder / "good.safetensors", {"a": floats(2)})
    (folder / "bad.safetensors").write_bytes(data)
    for sides in ((good, folder / "bad.safetensors"), (folder / "bad.safetensors", good)):
        with pytest.raises(SourceError) as caught:
            api.diff(*sides)
        assert caught.value.exit_code == 4
        assert "bad.safetensors" in str(caught.value)


def test_a_header_without_values_can_be_compared_by_names_alone(folder: Path) -> None:
    (folder / "header.json").write_text('{"a": {"dtype": "F32", "shape": [2]}}')
    good = write(folder / "good.safetensors", {"a": floats(2)})
    with pytest.raises(SourceError, match="no values"):
        api.diff(folder / "header.json", good)
    found = api.diff(folder / "header.json", good, level="header")
    assert [item.kind for item in found.entries] == ["unread"]
    assert not found.differs


def test_a_file_that_changes_meanwhile_is_refused(folder: Path) -> None:
    good = write(folder / "good.safetensors", {"a": floats(2)})

    @contextmanager
    def touching(what: str) -> Any:
        os.utime(good, (1, 1))
        yield lambda done, total: None

    with pytest.raises(SourceError, match="changed while it was read"):
        api.diff(good, good, progress=touching)
