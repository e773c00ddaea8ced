from __future__ import annotations

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
from converter.errors import ExecutionError, MismatchError, UsageError
from converter.manifest import Manifest
from converter.runtime import Check, load_tensors
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
