import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from converter.errors import SourceError
from converter.ray_executor import _holders
from converter.ray_task import SharedFiles, see
from converter.source import open_again, open_source

FILES = ["tp-a.safetensors", "tp-b.safetensors"]


def save(path: Path, value: float, **metadata: str) -> None:
    tensors = {"w": np.full((2, 3), value, np.float32), "norm": np.ones(3, np.float32)}
    safetensors.numpy.save_file(tensors, path, metadata)


def write_ranks(folder: Path, listed: object) -> Path:
    path = folder / "model.ranks.json"
    path.write_text(json.dumps(listed))
    return path


@pytest.fixture
def ranks(tmp_path: Path) -> Path:
    """Two ranks, of which the second is listed first."""
    save(tmp_path / FILES[0], 10, format="pt", rank="a")
    save(tmp_path / FILES[1], 20, format="pt", rank="b")
    return write_ranks(tmp_path, {"ranks": [FILES[1], FILES[0]]})


def test_the_tensors_of_each_rank_are_named_by_its_place_in_the_list(ranks: Path) -> None:
    with open_source(ranks) as source:
        names = ["rank.0.norm", "rank.0.w", "rank.1.norm", "rank.1.w"]
        assert sorted(source.header) == names
        assert source.metadata == {"format": "pt"}, "only what all ranks say"
        assert [file.name for file in source.files] == [FILES[1], FILES[0]]
        assert [file.prefix for file in source.files] == ["rank.0.", "rank.1."]
        for name, value in (("rank.0.w", 20), ("rank.1.w", 10)):
            assert source.read(name) == np.full(6, value, np.float32).tobytes()
        piece = bytearray(4)
        source.read_into("rank.1.w", piece, 20)
        assert piece == np.float32(10).tobytes()
        assert source.sha256(source.files[0]) != source.sha256(source.files[1])


def test_the_folder_of_the_list_and_its_files_is_the_same_checkpoint(ranks: Path) -> None:
    with open_source(ranks.parent) as source, open_source(ranks) as listed:
        assert source.header == listed.header
    save(ranks.parent / "other.safetensors", 30)
    with pytest.raises(SourceError, match="more than one checkpoint"):
        open_source(ranks.parent)


def test_a_list_of_ranks_that_is_found_in_a_folder_may_not_lead_out_of_it(
    ranks: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / ranks.name
    ranks.rename(elsewhere)
    ranks.symlink_to(elsewhere)
    with pytest.raises(SourceError, match="leads out"):
        open_source(ranks.parent)


def test_a_tensor_ends_where_that_of_its_rank_does(ranks: Path) -> None:
    with open_source(ranks) as source, pytest.raises(ValueError, match="ends before"):
        source.read_into("rank.0.w", bytearray(8), 20)


def test_a_change_of_any_rank_is_noticed(ranks: Path) -> None:
    with open_source(ranks) as source:
        source.check_unchanged()
        os.utime(ranks.with_name(FILES[0]), ns=(1, 1))
        with pytest.raises(SourceError, match=FILES[0]):
            source.check_unchanged()


def test_a_file_that_is_opened_again_has_the_names_of_its_rank(ranks: Path) -> None:
    with open_source(ranks) as source:
        for file in source.files:
            with open_again(file) as again:
                assert again.files == (file,)
                assert all(source.header[name] == spec for name, spec in again.header.items())
                assert again.sha256(file) == source.sha256(file)


def test_workers_elsewhere_open_the_same_ranks(ranks: Path) -> None:
    with open_source(ranks) as source:
        holders = _holders(source)
        assert {name: file.name for name, file in holders.items()} == {
            name: FILES[1] if name.startswith("rank.0.") else FILES[0] for name in source.header
        }
        with SharedFiles([see(file) for file in source.files]) as shared:
            assert shared.header == source.header
            for name in source.header:
                assert shared.read(name) == source.read(name)
            for file, other in zip(shared.files, source.files, strict=True):
                assert shared.sha256(file) == source.sha256(other)


@pytest.mark.parametrize(
    "listed",
    [
        [],
        {"ranks": []},
        {"ranks": "tp-a.safetensors"},
        {"ranks": [0, 1]},
        {"ranks": FILES, "size": 2},
        {"files": FILES},
    ],
)
def test_what_is_no_list_of_ranks_is_refused(tmp_path: Path, listed: object) -> None:
    with pytest.raises(SourceError, match="not a list of ranks") as caught:
        open_source(write_ranks(tmp_path, listed))
    assert caught.value.findings[0].code == "ranks"


def test_one_file_is_not_two_ranks(ranks: Path) -> None:
    listing = write_ranks(ranks.parent, {"ranks": [FILES[0], FILES[0]]})
    with pytest.raises(SourceError, match="one file is listed as several ranks") as caught:
        open_source(listing)
    assert caught.value.findings[0].got == repr(FILES[0])


@pytest.mark.parametrize(
    "name", ["../tp-a.safetensors", "/etc/tp.safetensors", "a/b.safetensors", "tp-a.bin", ""]
)
def test_the_name_of_a_rank_leads_nowhere_else(ranks: Path, name: str) -> None:
    with pytest.raises(SourceError, match="name is not fit") as caught:
        open_source(write_ranks(ranks.parent, {"ranks": [name]}))
    assert caught.value.findings[0].code == "ranks"


def test_a_link_out_of_the_folder_is_refused(ranks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / FILES[0]).symlink_to(ranks.with_name(FILES[0]))
    with pytest.raises(SourceError):
        open_source(write_ranks(folder, {"ranks": [FILES[0]]}))


def test_every_rank_that_is_absent_or_broken_is_listed(ranks: Path) -> None:
    ranks.with_name(FILES[0]).write_bytes(b"no")
    listing = write_ranks(ranks.parent, {"ranks": [FILES[0], FILES[1], "tp-c.safetensors"]})
    with pytest.raises(SourceError) as caught:
        open_source(listing)
    wheres = [finding.where for finding in caught.value.findings]
    assert wheres == [str(ranks.with_name(name)) for name in (FILES[0], "tp-c.safetensors")]


def test_no_file_stays_open_when_one_is_refused(ranks: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    ranks.with_name(FILES[0]).unlink()
    with pytest.raises(SourceError):
        open_source(ranks)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before
