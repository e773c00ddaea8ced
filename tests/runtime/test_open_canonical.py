from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from canonical_fixture import edit_manifest, flip, read_manifest, write_canonical

from converter.canonical import MANIFEST_NAME, WEIGHTS_NAME
from converter.errors import MismatchError, SourceError
from converter.manifest import Manifest, TensorRecord
from converter.runtime import load_tensors, open_canonical


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tensors = {"a.weight": torch.randn(16, 16), "b.weight": torch.randn(7), "c": torch.zeros(0)}
    return write_canonical(tmp_path / "toy", tensors, aliases={"d": "c"})


def change_tensor(
    name: str, change: Callable[[TensorRecord], TensorRecord]
) -> Callable[[Manifest], Manifest]:
    def edit(manifest: Manifest) -> Manifest:
        tensors = [change(item) if item.name == name else item for item in manifest.tensors]
        return replace(manifest, tensors=tuple(tensors))

    return edit


def test_a_canonical_directory_opens_and_says_what_it_holds(path: Path) -> None:
    directory = open_canonical(str(path))
    assert directory.path == path
    assert directory.manifest == read_manifest(path)


def test_a_link_to_the_directory_is_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    assert open_canonical(tmp_path / "link").manifest == read_manifest(path)


def test_an_absent_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file or directory"):
        open_canonical(tmp_path / "absent")


def test_a_file_in_place_of_the_directory_is_refused(path: Path) -> None:
    with pytest.raises(SourceError, match="not a directory"):
        open_canonical(path / WEIGHTS_NAME)


def test_a_directory_without_manifest_is_refused(path: Path) -> None:
    (path / MANIFEST_NAME).unlink()
    with pytest.raises(SourceError, match=r"holds no manifest\.json"):
        open_canonical(path)


def test_an_unknown_format_version_is_refused(path: Path) -> None:
    manifest = path / MANIFEST_NAME
    manifest.write_bytes(manifest.read_bytes().replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(SourceError, match="format version"):
        open_canonical(path)


@pytest.mark.parametrize("name", [MANIFEST_NAME, WEIGHTS_NAME])
def test_a_linked_file_is_refused(path: Path, name: str) -> None:
    (path / name).rename(path / "elsewhere")
    (path / name).symlink_to("elsewhere")
    with pytest.raises(SourceError, match=rf"{name}: not a regular file"):
        open_canonical(path)


@pytest.mark.parametrize("name", [MANIFEST_NAME, WEIGHTS_NAME])
def test_a_pipe_is_refused_without_waiting_for_it(path: Path, name: str) -> None:
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(SourceError, match=rf"{name}: not a regular file"):
        open_canonical(path)


def test_a_missing_file_is_named(path: Path) -> None:
    (path / WEIGHTS_NAME).unlink()
    with pytest.raises(MismatchError, match=rf"{WEIGHTS_NAME}: the file is missing"):
        open_canonical(path)


@pytest.mark.parametrize("growth", [-1, 1])
def test_a_truncated_or_extended_file_is_refused_with_both_sizes(path: Path, growth: int) -> None:
    size = (path / WEIGHTS_NAME).stat().st_size
    os.truncate(path / WEIGHTS_NAME, size + growth)
    with pytest.raises(MismatchError) as caught:
        open_canonical(path)
    (finding,) = caught.value.findings
    assert (finding.code, finding.expected, finding.got) == (
        "size",
        f"{size} bytes",
        f"{size + growth} bytes",
    )


def test_a_flip_of_any_header_byte_is_refused(path: Path) -> None:
    for position in [0, 7, 8, 40, 200, 4095]:
        flip(path / WEIGHTS_NAME, position)
        with pytest.raises(MismatchError, match=rf"{WEIGHTS_NAME}: header: byte {position} is not"):
            load_tensors(path)
        flip(path / WEIGHTS_NAME, position)
    load_tensors(path)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("offset", lambda item: replace(item, offset=item.offset + 4)),
        ("size", lambda item: replace(item, size=item.size + 4)),
        ("offset", lambda item: replace(item, offset=0)),
    ],
)
def test_a_manifest_with_a_wrong_place_names_file_tensor_and_field(
    path: Path, field: str, change: Callable[[TensorRecord], TensorRecord]
) -> None:
    edit_manifest(path, change_tensor("b.weight", change))
    with pytest.raises(MismatchError) as caught:
        open_canonical(path)
    finding = caught.value.findings[0]
    assert finding.where == str(path / WEIGHTS_NAME)
    assert finding.what.startswith(f"{field}: ")
    assert finding.tensor == "b.weight"


@pytest.mark.parametrize("field", ["size", "header_sha256"])
def test_a_manifest_with_a_wrong_file_record_names_file_and_field(path: Path, field: str) -> None:
    def change(manifest: Manifest) -> Manifest:
        wrong = {"size": 5} if field == "size" else {"header_sha256": "0" * 64}
        return replace(manifest, files=(replace(manifest.files[0], **wrong),))

    edit_manifest(path, change)
    with pytest.raises(MismatchError, match=rf"{WEIGHTS_NAME}: {field}: "):
        open_canonical(path)


def test_a_manifest_with_another_dtype_of_the_same_width_is_refused(path: Path) -> None:
    edit_manifest(path, change_tensor("a.weight", lambda item: replace(item, dtype="I32")))
    with pytest.raises(MismatchError, match="header"):
        open_canonical(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda item: replace(item, name="../a"), "not a name for a tensor"),
        (lambda item: replace(item, name="__metadata__"), "not a name for a tensor"),
        (lambda item: replace(item, file="../model.safetensors"), "not a weights file"),
        (lambda item: replace(item, shape=(0, 2**62)), "not a shape"),
        (lambda item: replace(item, name="d"), "not an alias"),
    ],
)
def test_a_manifest_that_no_conversion_writes_is_refused(
    path: Path, change: Callable[[TensorRecord], TensorRecord], message: str
) -> None:
    edit_manifest(path, change_tensor("c", change))
    with pytest.raises(SourceError, match=message):
        open_canonical(path)


def test_an_alias_of_nothing_is_refused(path: Path) -> None:
    edit_manifest(path, lambda manifest: replace(manifest, aliases={"d": "absent"}))
    with pytest.raises(SourceError, match="'absent' must be stored"):
        open_canonical(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../other.safetensors", "not a manifest, at files / 0 / name"),
        ("model-00001-of-00002.safetensors", "does not list the weights files"),
    ],
)
def test_weights_files_of_other_names_are_refused(path: Path, name: str, words: str) -> None:
    def rename(manifest: Manifest) -> Manifest:
        return replace(manifest, files=(replace(manifest.files[0], name=name),))

    edit_manifest(path, rename)
    with pytest.raises(SourceError, match=words):
        open_canonical(path)
