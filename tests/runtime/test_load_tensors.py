from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from canonical_fixture import (
    assert_same_bytes,
    edit_manifest,
    every_dtype,
    flip,
    read_manifest,
    write_canonical,
)

from converter import canonical
from converter.canonical import MANIFEST_NAME, SUMS_NAME, WEIGHTS_NAME
from converter.errors import (
    ConverterError,
    ExecutionError,
    MismatchError,
    SourceError,
    UsageError,
)
from converter.manifest import Manifest
from converter.runtime import Check, load_slices, load_tensors
from converter.torch_dtypes import TORCH_DTYPES

CHECKS: list[Check] = ["header", "full"]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.runtime.read.CHUNK_BYTES", 256)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "PIECE_BYTES", 1000)


@pytest.mark.parametrize("check", CHECKS)
def test_every_dtype_scalars_and_empty_tensors_come_back_in_manifest_order(
    tmp_path: Path, check: Check
) -> None:
    tensors = every_dtype()
    assert_same_bytes(
        load_tensors(write_canonical(tmp_path / "toy", tensors), check=check), tensors
    )


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.usefixtures("small_chunks", "small_pieces")
def test_chunks_and_pieces_that_end_anywhere_change_nothing(tmp_path: Path, check: Check) -> None:
    tensors = every_dtype()
    assert_same_bytes(
        load_tensors(write_canonical(tmp_path / "toy", tensors), check=check), tensors
    )


@pytest.mark.parametrize("check", CHECKS)
def test_shards_give_one_dict_in_manifest_order(tmp_path: Path, check: Check) -> None:
    tensors = {name: torch.randn(8, 8) for name in "abcde"}
    path = write_canonical(tmp_path / "toy", tensors, shards=["bd", "e", "ac"])
    assert_same_bytes(load_tensors(path, check=check), tensors)


def test_a_directory_without_tensors_gives_none(tmp_path: Path) -> None:
    assert load_tensors(write_canonical(tmp_path / "toy", {}), check="full") == {}


def test_an_alias_is_the_very_tensor_it_stands_for(tmp_path: Path) -> None:
    embed = {"embed.weight": torch.ones(4)}
    path = write_canonical(tmp_path / "toy", embed, aliases={"head.weight": "embed.weight"})
    tensors = load_tensors(path)
    assert list(tensors) == ["embed.weight", "head.weight"]
    assert tensors["head.weight"] is tensors["embed.weight"]


def test_the_tensors_of_a_file_share_one_allocation_and_start_aligned(tmp_path: Path) -> None:
    tensors = load_tensors(write_canonical(tmp_path / "toy", every_dtype())).values()
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
    assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in tensors)


def test_what_is_loaded_in_inference_mode_and_under_another_default_device_is_ordinary(
    tmp_path: Path,
) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.ones(4)})
    with torch.inference_mode(), torch.device("meta"):
        tensor = load_tensors(path, check="full")["a"]
    assert not tensor.is_inference()
    assert tensor.device == torch.device("cpu")


@pytest.mark.usefixtures("small_chunks", "small_pieces")
def test_a_flipped_byte_in_any_tensor_is_found_and_named(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", every_dtype())
    for record in read_manifest(path).tensors:
        for position in {0, record.size // 2, record.size - 1} if record.size else set():
            flip(path / record.file, record.offset + position)
            with pytest.raises(MismatchError) as caught:
                load_tensors(path, check="full")
            assert [finding.tensor for finding in caught.value.findings] == [record.name]
            flip(path / record.file, record.offset + position)
    load_tensors(path, check="full")


def test_all_tensors_that_differ_are_named_over_all_shards(tmp_path: Path) -> None:
    tensors = {name: torch.ones(8, 8) for name in "abc"}
    path = write_canonical(tmp_path / "toy", tensors, shards=["ab", "c"])
    flip(path / "model-00001-of-00002.safetensors", canonical.DATA_ALIGNMENT_BYTES)
    flip(path / "model-00002-of-00002.safetensors", canonical.DATA_ALIGNMENT_BYTES)
    with pytest.raises(MismatchError) as caught:
        load_tensors(path, check="full")
    assert [finding.tensor for finding in caught.value.findings] == ["a", "c"]


@pytest.mark.usefixtures("small_pieces")
def test_a_tensor_that_differs_in_several_pieces_is_named_once(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", {"large": torch.arange(2000, dtype=torch.int16)})
    assert len(read_manifest(path).tensors[0].pieces) == 4
    for position in (0, 999, 1000, 3999):
        flip(path / canonical.WEIGHTS_NAME, canonical.DATA_ALIGNMENT_BYTES + position)
    with pytest.raises(MismatchError) as caught:
        load_tensors(path, check="full")
    assert [finding.tensor for finding in caught.value.findings] == ["large"]


@pytest.mark.usefixtures("small_pieces")
def test_pieces_that_do_not_cover_their_tensor_are_refused(tmp_path: Path) -> None:
    def drop_last_piece(manifest: Manifest) -> Manifest:
        record = manifest.tensors[0]
        return replace(manifest, tensors=(replace(record, pieces=record.pieces[:-1]),))

    path = write_canonical(tmp_path / "toy", {"large": torch.arange(2000, dtype=torch.int16)})
    edit_manifest(path, drop_last_piece)
    with pytest.raises(MismatchError, match="pieces"):
        load_tensors(path, check="full")


def test_a_changed_byte_of_the_manifest_is_found_when_all_bytes_are_checked(
    tmp_path: Path,
) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(4)})
    text = (path / MANIFEST_NAME).read_bytes()
    (path / MANIFEST_NAME).write_bytes(text.replace(b'"scale": 2', b'"scale": 3'))
    load_tensors(path)
    with pytest.raises(MismatchError, match="not the file that SHA256SUMS was written with"):
        load_tensors(path, check="full")
    (path / MANIFEST_NAME).write_bytes(text)
    load_tensors(path, check="full")


@pytest.mark.parametrize("name", [MANIFEST_NAME, SUMS_NAME, WEIGHTS_NAME])
def test_a_changed_byte_anywhere_in_any_file_is_found_when_all_bytes_are_checked(
    tmp_path: Path, name: str
) -> None:
    tensors = {"a": torch.zeros(4), "b": torch.ones(3, dtype=torch.uint8)}
    path = write_canonical(tmp_path / "toy", tensors, aliases={"c": "a"})
    for position in range(0, (path / name).stat().st_size, 3):
        flip(path / name, position)
        with pytest.raises(ConverterError) as caught:
            load_tensors(path, check="full")
        assert caught.value.exit_code in (4, 7)
        flip(path / name, position)
    load_tensors(path, check="full")


def test_what_vouches_for_the_manifest_must_be_there_when_all_bytes_are_checked(
    tmp_path: Path,
) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(4)})
    (path / SUMS_NAME).unlink()
    load_tensors(path)
    with pytest.raises(MismatchError, match=f"{SUMS_NAME}: the file is missing"):
        load_tensors(path, check="full")


def test_a_manifest_that_is_longer_than_any_is_refused_unread(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(4)})
    os.truncate(path / MANIFEST_NAME, 1 << 40)
    with pytest.raises(SourceError, match="too large a file"):
        load_tensors(path)


def test_a_manifest_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(4)})
    fstat = os.fstat
    calls: list[int] = []

    def editing(descriptor: int) -> os.stat_result:
        status = fstat(descriptor)
        calls.append(descriptor)
        if len(calls) == 2:  # the first proves that it is a regular file
            flip(path / MANIFEST_NAME, 100)
        return status

    monkeypatch.setattr(os, "fstat", editing)
    with pytest.raises(MismatchError, match=f"{MANIFEST_NAME}: the file changed while it was read"):
        load_tensors(path)


def test_a_dtype_that_torch_does_not_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(4, dtype=torch.uint8)})
    monkeypatch.delitem(TORCH_DTYPES, "U8")
    with pytest.raises(ExecutionError, match="torch has no such dtype"):
        load_tensors(path)


def test_an_unknown_check_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown check 'fast'"):
        load_tensors(tmp_path, check="fast")  # type: ignore[arg-type]


def test_a_byte_that_is_no_boolean_is_refused_though_every_digest_holds(tmp_path: Path) -> None:
    forged = torch.frombuffer(bytearray([0, 1, 2, 1, 255]), dtype=torch.bool)
    path = write_canonical(tmp_path / "out", {"mask": forged, "weight": torch.ones(3)})
    with pytest.raises(MismatchError) as caught:
        load_tensors(path, check="full")
    (finding,) = caught.value.findings
    assert (finding.code, finding.tensor) == ("boolean", "mask")
    assert finding.got == "2 of 5 bytes are not"
    with pytest.raises(MismatchError):
        load_slices(path, lambda *_: [slice(0, 1)], check="full")
