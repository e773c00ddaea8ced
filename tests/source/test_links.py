"""Links that a user names are followed; those that a checkpoint holds may not lead out of it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from converter.errors import SourceError
from converter.finding import Finding
from converter.source import open_source

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def save(path: Path, name: str = "a") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file({name: np.ones(2, np.float32)}, path)
    return path


def save_index(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"weight_map": {"a": FIRST, "b": SECOND}}))
    return path


def link(path: Path, target: Path) -> Path:
    """Make a link at ``path`` with the relative path to ``target``, as the Hub's cache has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))
    return path


def refusal(path: Path) -> Finding:
    with pytest.raises(SourceError) as caught:
        open_source(path)
    (finding,) = caught.value.findings
    assert finding.code == "link"
    assert finding.hint
    return finding


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A checkpoint of somebody else."""
    return save(tmp_path / "elsewhere" / "private.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a stranger."""
    path = tmp_path / "download"
    path.mkdir()
    return path


@pytest.mark.parametrize("subfolder", ["", "transformer", "a/b"])
def test_a_snapshot_in_the_cache_of_the_hub_is_read(tmp_path: Path, subfolder: str) -> None:
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / ("0123456789abcdef" * 2) / subfolder
    blobs = repository / "blobs"
    link(snapshot / INDEX, save_index(blobs / "aa"))
    link(snapshot / FIRST, save(blobs / "bb", "a"))
    link(snapshot / SECOND, save(blobs / "cc", "b"))
    hub = tmp_path / "hub"
    hub.symlink_to(tmp_path)  # a cache that was moved, with a link in its old place
    for path in (snapshot, snapshot / INDEX, hub / snapshot.relative_to(tmp_path)):
        with open_source(path) as source:
            assert list(source.header) == ["a", "b"]
            assert [file.name for file in source.files] == [FIRST, SECOND]
    with open_source(snapshot / FIRST) as source:
        assert list(source.header) == ["a"]


def test_a_link_that_the_user_names_leads_anywhere(folder: Path, outside: Path) -> None:
    with open_source(link(folder / "a.safetensors", outside)) as source:
        assert list(source.header) == ["a"]
    named = link(folder / "named", outside.parent)
    with open_source(named) as source:
        assert list(source.header) == ["a"]


def test_a_link_within_a_folder_is_followed(folder: Path) -> None:
    link(folder / "model.safetensors", save(folder / "data" / "weights"))
    with open_source(folder) as source:
        assert source.files[0].name == "model.safetensors"


def test_a_folder_does_not_lend_a_file_from_elsewhere(folder: Path, outside: Path) -> None:
    path = link(folder / "model.safetensors", outside)
    finding = refusal(folder)
    assert finding.where == str(path)
    assert finding.expected == f"a file in {folder}"
    assert finding.got == str(outside)


@pytest.mark.parametrize("named", [".", INDEX])
def test_a_shard_does_not_lend_a_file_from_elsewhere(
    folder: Path, outside: Path, named: str
) -> None:
    save_index(folder / INDEX)
    link(folder / FIRST, outside)
    save(folder / SECOND, "b")
    assert refusal(folder / named).where == str(folder / FIRST)


def test_an_index_that_was_found_does_not_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    link(folder / INDEX, save_index(tmp_path / "elsewhere" / INDEX))
    save(folder / FIRST, "a")
    save(folder / SECOND, "b")
    assert refusal(folder).where == str(folder / INDEX)
    with open_source(folder / INDEX) as source:
        assert list(source.header) == ["a", "b"]


def test_a_link_out_of_the_folder_stays_one_over_a_link_in_it(folder: Path, outside: Path) -> None:
    link(folder / "model.safetensors", link(folder / "step", outside))
    assert refusal(folder).got == str(outside)


def test_the_blobs_of_a_snapshot_are_files_of_their_folder(tmp_path: Path, outside: Path) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / "1"
    blobs = tmp_path / "models--org--name" / "blobs"
    path = snapshot / "model.safetensors"
    link(path, link(blobs / "aa", outside))
    assert refusal(snapshot).got == str(outside)
    (blobs / "aa").unlink()
    blobs.rmdir()
    blobs.symlink_to(outside.parent)
    path.unlink()
    link(path, blobs / outside.name)
    assert refusal(snapshot).got == str(outside)


def test_a_link_to_what_is_no_checkpoint_tells_nothing_of_it(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("password=hunter2\n")
    link(folder / "model.safetensors", secret)
    assert "hunter2" not in refusal(folder).render()


def test_a_link_exchanged_while_it_is_opened_is_noticed(
    folder: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = link(folder / "model.safetensors", outside)
    inside = save(folder / "data" / "weights")
    real_open: Callable[..., int] = os.open

    def exchanging(name: Path, flags: int) -> int:
        descriptor = real_open(name, flags)
        path.unlink()
        link(path, inside)
        return descriptor

    monkeypatch.setattr(os, "open", exchanging)
    assert refusal(folder).where == str(path)


def test_a_link_to_nothing_and_one_to_itself_are_refused(folder: Path) -> None:
    path = link(folder / "model.safetensors", folder / "gone")
    with pytest.raises(SourceError, match="no such file"):
        open_source(folder)
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(SourceError, match="Too many levels"):
        open_source(folder)
