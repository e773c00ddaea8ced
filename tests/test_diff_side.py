"""Canonical directories on a side: aliases, and what their manifests are believed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from numpy_files import write
from safetensors.numpy import load_file
from toy import convert, toy_tensors

from converter import api
from converter.canonical import METADATA
from converter.diff_entry import Entry
from converter.diff_side import is_constant
from converter.errors import SourceError
from converter.source import open_source
from converter.source.stored import Stored


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("side")
    convert(folder, toy_tensors())
    return folder


@pytest.fixture
def twins(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two canonical directories that are the same."""
    for name in ("one", "other"):
        shutil.copytree(made / "out", tmp_path / name)
    return tmp_path / "one", tmp_path / "other"


def change(directory: Path) -> None:
    """Change the last byte of data, of the mask, and leave the manifest as it is."""
    file = directory / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def by_name(entries: tuple[Entry, ...]) -> dict[str, Entry]:
    return {name: entry for entry in entries for name in (*entry.here, *entry.there)}


def test_a_manifest_that_lies_does_not_make_bytes_equal(twins: tuple[Path, Path]) -> None:
    change(twins[1])
    found = api.diff(*twins)
    assert found.differs
    assert by_name(found.entries)["mask"].kind == "changed"
    assert found.here.digests["mask"] != found.there.digests["mask"]


def test_without_values_the_manifests_are_believed(twins: tuple[Path, Path]) -> None:
    change(twins[1])
    found = api.diff(*twins, level="header")
    assert not found.differs
    assert {entry.kind for entry in found.entries} == {"equal"}


def test_without_values_manifests_tell_what_was_changed_or_renamed(
    made: Path, tmp_path: Path
) -> None:
    tensors = toy_tensors()
    tensors["net.layers.0.qkv"] = tensors["net.layers.0.qkv"].flip(0)
    rules = (made / "toy.yaml").read_text().replace("blocks.{i}.out.weight", "b.{i}.out.weight")
    convert(tmp_path, tensors, rules)
    found = api.diff(made / "out", tmp_path / "out", level="header")
    kinds = {name: entry.kind for name, entry in by_name(found.entries).items()}
    assert kinds["blocks.0.q.weight"] == "changed"
    assert kinds["blocks.1.q.weight"] == "equal"
    assert by_name(found.entries)["b.1.out.weight"].here == ("blocks.1.out.weight",)
    assert kinds["b.1.out.weight"] == "renamed"
    assert kinds["blocks.0.norm.weight"] == "equal"


def test_ones_are_known_by_statistics_to_tell_nothing(made: Path, tmp_path: Path) -> None:
    rules = (made / "toy.yaml").read_text().replace("steps_taken: []", "counter: []")
    convert(tmp_path, toy_tensors(), rules)
    for level in ("header", "full"):
        found = by_name(api.diff(made / "out", tmp_path / "out", level=level).entries)
        assert found["counter"].kind == "ambiguous"


def test_without_values_and_digests_only_specs_are_compared(made: Path, tmp_path: Path) -> None:
    plain = dict(load_file(made / "out" / "model.safetensors"))
    plain["mask"] = np.zeros(5, np.bool_)
    other = write(tmp_path / "plain.safetensors", plain)
    found = by_name(api.diff(made / "out", other, level="header").entries)
    assert found["embedding.weight"].kind == "unread"
    assert found["mask"].kind == "changed"


def test_digests_of_other_tensors_than_those_that_are_there_are_not_believed(
    twins: tuple[Path, Path],
) -> None:
    plain = dict(load_file(twins[1] / "model.safetensors"))
    plain["embedding.weight"] = plain["embedding.weight"].reshape(4, 6)
    write(twins[1] / "model.safetensors", plain, METADATA)
    found = by_name(api.diff(*twins, level="header").entries)
    assert found["embedding.weight"].kind == "changed"
    assert found["mask"].kind == "equal"


def test_an_alias_is_a_name_as_others_are(made: Path, tmp_path: Path) -> None:
    plain = dict(load_file(made / "out" / "model.safetensors"))
    plain["head.weight"] = plain["embedding.weight"]
    assert not api.diff(made / "out", write(tmp_path / "a.safetensors", plain)).differs
    plain["head.weight"] = plain["embedding.weight"] + 1
    found = api.diff(made / "out", write(tmp_path / "b.safetensors", plain))
    assert [entry.here for entry in found.entries if entry.kind == "changed"] == [("head.weight",)]


def test_the_file_of_a_canonical_directory_has_no_aliases(made: Path) -> None:
    found = api.diff(made / "out", made / "out" / "model.safetensors")
    assert by_name(found.entries)["head.weight"].kind == "only-here"


def test_a_canonical_directory_with_a_broken_manifest_is_refused(
    twins: tuple[Path, Path],
) -> None:
    (twins[0] / "manifest.json").write_bytes(b"{}")
    with pytest.raises(SourceError, match="manifest"):
        api.diff(*twins)


def test_a_manifest_of_something_else_is_none_of_ours(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "model.safetensors", {"a": np.arange(3.0)})
    (tmp_path / "one" / "manifest.json").write_text("{}")
    assert not api.diff(tmp_path / "one", tmp_path / "other").differs


@pytest.mark.parametrize("count", [1, 5, 3 << 18])
@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.complex64])
def test_one_value_throughout_is_seen_to_the_last_element(
    tmp_path: Path, count: int, dtype: type
) -> None:
    array: NDArray[Any] = np.full(count, 3).astype(dtype)
    for expected in (True, count == 1):
        with open_source(write(tmp_path / "w.safetensors", {"w": array})) as source:
            assert is_constant(Stored(source, "w", source.header["w"])) is expected
        array[-1] = 4
