"""Mapped tensors: the bytes of the files, read when they are touched, and never written back."""

from __future__ import annotations

import gc
import mmap
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from canonical_fixture import assert_same_bytes, every_dtype, flip, write_canonical
from torch import Tensor, nn

from converter.canonical import DATA_ALIGNMENT_BYTES, MANIFEST_NAME, WEIGHTS_NAME
from converter.errors import MismatchError, SourceError, UsageError
from converter.runtime import load_bundle, load_into, load_model, load_tensors
from converter.runtime.directory import opened
from converter.runtime.mapped import map_file

FILE = WEIGHTS_NAME


@pytest.fixture(autouse=True)
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every copy fail."""

    def read(*_: object, **__: object) -> None:
        raise AssertionError("something was copied")

    monkeypatch.setattr("converter.runtime.tensors.read_units", read)


def mapped_files(path: Path) -> set[str]:
    """Return which weights files of a directory are mapped into this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = [Path(line.split(maxsplit=5)[-1].removesuffix(" (deleted)")) for line in lines]
    return {file.stem for file in found if file.parent == path}


def test_every_dtype_scalars_and_empty_tensors_come_back_in_manifest_order(
    tmp_path: Path,
) -> None:
    tensors = every_dtype()
    path = write_canonical(tmp_path / "toy", tensors)
    assert_same_bytes(load_tensors(path, mapped=True), tensors)


def test_shards_and_aliases_are_mapped(tmp_path: Path) -> None:
    tensors = every_dtype()
    names = list(tensors)
    path = write_canonical(
        tmp_path / "toy", tensors, shards=[names[3:], names[:3]], aliases={"tied": "vector"}
    )
    mapped = load_tensors(path, mapped=True)
    assert mapped["tied"] is mapped["vector"]
    assert_same_bytes(mapped, {**tensors, "tied": tensors["vector"]})


@pytest.mark.parametrize("tensors", [{}, {"empty": torch.zeros(0, 3)}])
def test_a_directory_without_data_is_mapped(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = write_canonical(tmp_path / "toy", tensors)
    assert_same_bytes(load_tensors(path, mapped=True), tensors)


def test_a_byte_is_read_when_it_is_first_touched(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(1 << 20, dtype=torch.uint8), "b": torch.zeros(64)}
    path = write_canonical(tmp_path / "toy", tensors)
    mapped = load_tensors(path, mapped=True)
    assert mapped["b"].sum() == 0
    flip(path / FILE, DATA_ALIGNMENT_BYTES + 500_000)
    assert mapped["a"][500_000] == 1


def test_what_is_written_to_a_tensor_stays_in_this_process(tmp_path: Path) -> None:
    tensors = every_dtype()
    path = write_canonical(tmp_path / "toy", tensors)
    before = (path / FILE).read_bytes()
    mapped = load_tensors(path, mapped=True)
    mapped["large"].fill_(7)
    mapped["scalar"].zero_()
    assert set(mapped["large"].tolist()) == {7}
    assert (path / FILE).read_bytes() == before
    assert_same_bytes(load_tensors(path, mapped=True), tensors)


def test_a_file_stays_mapped_as_long_as_one_of_its_tensors_lives_and_no_longer(
    tmp_path: Path,
) -> None:
    tensors = {f"t{i}": torch.full((64,), float(i)) for i in range(4)}
    path = write_canonical(tmp_path / "toy", tensors, shards=[["t0", "t1"], ["t2", "t3"]])
    mapped = load_tensors(path, mapped=True)
    assert mapped_files(path) == {"model-00001-of-00002", "model-00002-of-00002"}
    kept = mapped["t2"]
    del mapped
    gc.collect()
    assert mapped_files(path) == {"model-00002-of-00002"}
    shutil.rmtree(path)
    assert kept.tolist() == [2.0] * 64
    del kept
    gc.collect()
    assert not mapped_files(path)


def test_nothing_stays_open_when_all_tensors_are_gone(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(64)})
    before = os.listdir("/dev/fd")
    load_tensors(path, mapped=True)
    gc.collect()
    assert len(os.listdir("/dev/fd")) == len(before)


def test_the_header_is_proven_of_the_file_that_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(64)})
    other = write_canonical(tmp_path / "other", {"a": torch.ones(64)})
    make = mmap.mmap

    def exchange_first(*arguments: Any, **options: Any) -> mmap.mmap:
        (other / FILE).replace(path / FILE)
        return make(*arguments, **options)

    monkeypatch.setattr(mmap, "mmap", exchange_first)
    assert load_tensors(path, mapped=True)["a"].tolist() == [0.0] * 64


def test_a_header_that_the_manifest_does_not_give_is_refused(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(64)})
    flip(path / FILE, 60)
    with pytest.raises(MismatchError, match="header"):
        load_tensors(path, mapped=True)


def test_a_file_that_is_edited_while_it_is_mapped_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(64)})
    make = mmap.mmap

    def edit_first(*arguments: Any, **options: Any) -> mmap.mmap:
        flip(path / FILE, DATA_ALIGNMENT_BYTES)
        os.utime(path / FILE, ns=(0, 0))
        return make(*arguments, **options)

    monkeypatch.setattr(mmap, "mmap", edit_first)
    with pytest.raises(MismatchError, match="changed while it was read"):
        load_tensors(path, mapped=True)


def test_a_file_that_is_cut_short_before_it_is_mapped_is_an_error(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(4096)})
    with opened(path) as canonical:
        os.truncate(path / FILE, DATA_ALIGNMENT_BYTES)
        with pytest.raises(MismatchError, match="cut short"):
            map_file(canonical.files[0])


def test_a_file_that_cannot_be_mapped_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(19, "No such device")

    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(64)})
    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(SourceError, match=f"{FILE}: cannot be read: No such device"):
        load_tensors(path, mapped=True)


def test_bytes_of_a_mapping_cannot_be_proven_and_are_not_said_to_be(tmp_path: Path) -> None:
    for load in (load_tensors, load_model, load_bundle):
        with pytest.raises(UsageError, match="bytes of a mapping cannot be proven"):
            load(tmp_path / "absent", mapped=True, check="full")
    with pytest.raises(UsageError, match="bytes of a mapping cannot be proven"):
        load_into(nn.Linear(1, 1), tmp_path / "absent", mapped=True, check="full")


def test_only_host_memory_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr("converter.runtime.tensors.resolve_device", lambda _: gpu)
    with pytest.raises(UsageError, match="only host memory"):
        load_tensors(tmp_path / "absent", device="cuda", mapped=True)


def test_a_mapped_module_trains_and_leaves_the_files_alone(tmp_path: Path) -> None:
    module = nn.Linear(8, 8)
    path = write_canonical(tmp_path / "toy", module.state_dict())
    load_into(module, path, mapped=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    written = load_tensors(path, mapped=True)["bias"]
    torch.testing.assert_close(module.bias.detach(), written - 0.2)


def test_offsets_are_proven_as_for_any_load(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(64)})
    text = (path / MANIFEST_NAME).read_bytes()
    (path / MANIFEST_NAME).write_bytes(text.replace(b'"offset": 4096', b'"offset": 4352'))
    with pytest.raises(MismatchError, match="offset"):
        load_tensors(path, mapped=True)
