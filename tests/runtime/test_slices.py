"""Slices: what indexing of the whole tensor gives, from as few bytes as can be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from canonical_fixture import assert_same_bytes, every_dtype, flip, random_tensor, write_canonical
from torch import Tensor

from converter import canonical
from converter.canonical import DATA_ALIGNMENT_BYTES, WEIGHTS_NAME
from converter.errors import ExecutionError, MismatchError, UsageError
from converter.positional import WriteBuffer, read_at
from converter.runtime import Check, load_slices, share
from converter.torch_dtypes import TORCH_DTYPES

CHECKS: list[Check] = ["header", "full"]
BOXES: list[list[slice]] = [
    [],
    [slice(None)],
    [slice(1, 3)],
    [slice(2, None), slice(None), slice(None), slice(None)],
    [slice(None), slice(1, 2)],
    [slice(1, 2), slice(0, 2)],
    [slice(1, 3), slice(None), slice(1, 4)],
    [slice(None), slice(0, 2), slice(2, 3)],
    [slice(-3, -1), slice(1, None), slice(None, -1), slice(1, 2)],
    [slice(1, 2), slice(1, 2), slice(1, 2), slice(1, 2)],
    [slice(0, 99), slice(0, 1, 1)],
    [slice(2, 2)],
    [slice(3, 1), slice(0, 1)],
]


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("read", "parts"):
        monkeypatch.setattr(f"converter.runtime.{module}.CHUNK_BYTES", 256)
    monkeypatch.setattr("converter.runtime.parts.STAGE_BYTES", 1000)
    monkeypatch.setattr(canonical, "PIECE_BYTES", 512)


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return the begin and end of what is read of weights, from the start of data."""
    log: list[tuple[int, int]] = []

    def reading(fd: int, buffer: WriteBuffer, position: int) -> None:
        begin = position - DATA_ALIGNMENT_BYTES
        log.append((begin, begin + len(buffer)))
        read_at(fd, buffer, position)

    monkeypatch.setattr("converter.runtime.read.read_at", reading)
    return log


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("box", BOXES, ids=str)
def test_a_slice_is_what_indexing_gives(tmp_path: Path, box: Sequence[slice], check: Check) -> None:
    tensors = {dtype: random_tensor(dtype, (4, 3, 5, 7)) for dtype in TORCH_DTYPES}
    path = write_canonical(tmp_path / "toy", tensors)
    slices = load_slices(path, lambda *_: box, check=check)
    assert_same_bytes(slices, {name: tensor[tuple(box)] for name, tensor in tensors.items()})
    for tensor in slices.values():
        assert tensor.is_contiguous()
        assert not tensor._is_view()


@pytest.mark.parametrize("check", CHECKS)
def test_whole_tensors_of_any_dtype_rank_and_shard_come_in_manifest_order(
    tmp_path: Path, check: Check
) -> None:
    tensors = every_dtype()
    names = list(tensors)
    path = write_canonical(tmp_path / "toy", tensors, shards=[names[1::2], names[::2]])
    assert_same_bytes(load_slices(path, lambda *_: [], check=check), tensors)


def test_what_is_not_cut_is_not_loaded_and_an_alias_goes_with_its_tensor(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0), "b": torch.ones(2), "c": torch.zeros(3)}
    path = write_canonical(tmp_path / "toy", tensors, aliases={"x": "a", "y": "c"})
    asked: dict[str, tuple[int, ...]] = {}

    def cut(name: str, shape: tuple[int, ...]) -> list[slice] | None:
        asked[name] = shape
        return {"a": [slice(0, 2)], "b": []}.get(name)

    slices = load_slices(path, cut)
    assert asked == {"a": (6,), "b": (2,), "c": (3,)}
    assert list(slices) == ["a", "b", "x"]
    assert slices["x"] is slices["a"]
    assert slices["a"].tolist() == [0.0, 1.0]


def test_nothing_asked_is_nothing_read(tmp_path: Path, read_bytes: list[tuple[int, int]]) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.ones(64), "b": torch.ones(64)})
    assert load_slices(path, lambda *_: None) == {}
    assert set(load_slices(path, lambda *_: [slice(0, 0)])) == {"a", "b"}
    assert not read_bytes


def covered(log: list[tuple[int, int]]) -> list[int]:
    return sorted(byte for begin, end in log for byte in range(begin, end))


def test_rows_are_read_by_themselves_and_columns_from_the_first_to_the_last(
    tmp_path: Path, read_bytes: list[tuple[int, int]]
) -> None:
    path = write_canonical(tmp_path / "toy", {"a": random_tensor("I16", (64, 16))})
    load_slices(path, lambda *_: [slice(16, 32)])
    assert covered(read_bytes) == list(range(16 * 32, 32 * 32))
    read_bytes.clear()
    load_slices(path, lambda *_: [slice(16, 32), slice(8, 9)])
    assert covered(read_bytes) == list(range(16 * 32 + 16, 31 * 32 + 18))


def test_what_the_digests_cover_is_read_whole_when_all_is_proven(
    tmp_path: Path, read_bytes: list[tuple[int, int]]
) -> None:
    tensors = {"large": random_tensor("I16", (64, 16)), "small": random_tensor("I16", (16, 16))}
    path = write_canonical(tmp_path / "toy", tensors)
    load_slices(path, lambda *_: [slice(0, 8), slice(8, 9)], check="full")
    # 8 rows are within the first piece of the large one, and half of the small one.
    assert covered(read_bytes) == [*range(512), *range(2048, 2048 + 512)]


@pytest.mark.parametrize("rows", [slice(0, 16), slice(20, 40)])
def test_all_that_is_returned_is_proven_and_what_no_slice_touches_is_not(
    tmp_path: Path, rows: slice
) -> None:
    tensor = random_tensor("I16", (64, 16))  # four pieces of 16 rows
    path = write_canonical(tmp_path / "toy", {"a": tensor})
    touched = {row // 16 for row in range(64)[rows]}
    for piece in range(4):
        for position in (0, 511):
            flip(path / WEIGHTS_NAME, DATA_ALIGNMENT_BYTES + piece * 512 + position)
            for box in ([rows], [rows, slice(3, 4)]):
                if piece in touched:
                    with pytest.raises(MismatchError) as caught:
                        load_slices(path, lambda *_, box=box: box, check="full")
                    assert [finding.tensor for finding in caught.value.findings] == ["a"]
                else:
                    load_slices(path, lambda *_, box=box: box, check="full")
            flip(path / WEIGHTS_NAME, DATA_ALIGNMENT_BYTES + piece * 512 + position)


@pytest.mark.parametrize("box", [[slice(0, 3)], [slice(None), slice(0, 3)]])
def test_a_file_that_changes_under_a_load_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, box: list[slice]
) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.ones(8, 8), "b": torch.ones(8, 8)})

    def editing(fd: int, buffer: WriteBuffer, position: int) -> None:
        read_at(fd, buffer, position)
        flip(path / WEIGHTS_NAME, position)
        os.utime(path / WEIGHTS_NAME, ns=(0, 0))

    monkeypatch.setattr("converter.runtime.read.read_at", editing)
    with pytest.raises(MismatchError, match="changed while it was read"):
        load_slices(path, lambda *_: box)


def test_slices_that_a_tensor_does_not_have_are_all_told_at_once(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(4), "b": torch.ones(4, 4), "c": torch.tensor(1.0)}
    path = write_canonical(tmp_path / "toy", tensors)
    cuts = {"a": [slice(0, 1), slice(0, 1)], "b": [slice(0, 4, 2)], "c": [slice(0, 1)]}
    with pytest.raises(UsageError) as caught:
        load_slices(path, lambda name, _: cuts[name])
    assert [finding.tensor for finding in caught.value.findings] == ["a", "b", "c"]


def test_slices_are_ordinary_tensors_whatever_the_mode_of_the_caller(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.ones(4, 4)})
    with torch.inference_mode(), torch.device("meta"):
        slices = load_slices(path, lambda *_: [slice(0, 2), slice(0, 2)], check="full")
    assert not slices["a"].is_inference()
    assert slices["a"].tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_memory_that_is_not_there_is_an_error_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: list[tuple[int, int]]
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    path = write_canonical(tmp_path / "toy", {"a": torch.ones(4, 4)})
    monkeypatch.setattr("torch.empty", exhausted)
    with pytest.raises(ExecutionError, match="not enough memory"):
        load_slices(path, lambda *_: [slice(0, 2)])
    assert not read_bytes


@pytest.mark.parametrize("size", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_shares_are_those_of_torch_chunk_and_together_all(size: int, ranks: int) -> None:
    rows = torch.arange(size)
    shares = [rows[share(size, rank, ranks)] for rank in range(ranks)]
    assert torch.cat(shares).tolist() == rows.tolist()
    if size:
        chunks: list[Tensor] = list(rows.chunk(ranks))
        filled = [one for one in shares if one.numel()]
        assert [one.tolist() for one in filled] == [one.tolist() for one in chunks]


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_that_is_none_has_no_share(rank: int) -> None:
    with pytest.raises(UsageError, match="no such rank"):
        share(8, rank, 2)


@pytest.mark.cuda
@pytest.mark.parametrize("check", CHECKS)
def test_a_gpu_gets_the_same_slices(tmp_path: Path, check: Check) -> None:
    tensors = {dtype: random_tensor(dtype, (4, 3, 5, 7)) for dtype in TORCH_DTYPES}
    path = write_canonical(tmp_path / "toy", tensors)
    for box in BOXES:
        slices = load_slices(path, lambda *_, box=box: box, device="cuda", check=check)
        assert all(tensor.is_cuda for tensor in slices.values())
        assert_same_bytes(slices, {name: tensor[tuple(box)] for name, tensor in tensors.items()})
