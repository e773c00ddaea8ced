import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from converter.errors import SourceError
from converter.source import open_source

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
VALUES = {name: np.full(3, n, np.float32) for n, name in enumerate("abcd")}
WEIGHT_MAP = {"a": FIRST, "b": FIRST, "c": SECOND, "d": SECOND}
INDEX = "model.safetensors.index.json"


def save(path: Path, names: str, **metadata: str) -> None:
    safetensors.numpy.save_file({name: VALUES[name] for name in names}, path, metadata)


def write_index(directory: Path, weight_map: object) -> Path:
    index = directory / INDEX
    index.write_text(json.dumps({"metadata": {"total_size": 48}, "weight_map": weight_map}))
    return index


@pytest.fixture
def index(tmp_path: Path) -> Path:
    save(tmp_path / FIRST, "ab", format="pt", part="1")
    save(tmp_path / SECOND, "cd", format="pt", part="2")
    return write_index(tmp_path, WEIGHT_MAP)


def findings(index: Path) -> list[tuple[str, str | None, str | None, str | None]]:
    with pytest.raises(SourceError) as caught:
        open_source(index)
    assert {finding.code for finding in caught.value.findings} == {"index"}
    assert {finding.where for finding in caught.value.findings} == {str(index)}
    return [(f.what, f.tensor, f.expected, f.got) for f in caught.value.findings]


def test_shards_are_read_as_one_checkpoint(index: Path) -> None:
    with open_source(index) as source:
        assert list(source.header) == ["a", "b", "c", "d"]
        assert [file.name for file in source.files] == [FIRST, SECOND]
        assert source.metadata == {"format": "pt"}, "only what all shards say"
        for name, value in VALUES.items():
            assert source.read(name) == value.tobytes()
        piece = bytearray(4)
        source.read_into("d", piece, 8)
        assert piece == VALUES["d"].tobytes()[8:]
        assert source.sha256(source.files[1]) != source.sha256(source.files[0])


def test_a_change_of_any_shard_is_noticed(index: Path) -> None:
    with open_source(index) as source:
        source.check_unchanged()
        os.utime(index.with_name(SECOND), ns=(1, 1))
        with pytest.raises(SourceError, match=SECOND):
            source.check_unchanged()


def test_every_disagreement_of_index_and_shards_is_listed(index: Path) -> None:
    write_index(index.parent, {"a": FIRST, "b": SECOND, "c": SECOND, "z": FIRST})
    assert findings(index) == [
        ("a tensor that lies in another shard than the index says", "b", SECOND, FIRST),
        ("a tensor that the index does not list", "d", "not there", SECOND),
        ("a tensor of the index that no shard holds", "z", FIRST, ""),
    ]


def test_a_name_in_two_shards_is_refused(index: Path) -> None:
    save(index.with_name(SECOND), "acd")
    assert findings(index) == [
        ("a tensor that several shards hold", "a", FIRST, f"{FIRST}, {SECOND}")
    ]


def test_all_absent_and_malformed_shards_are_listed(index: Path) -> None:
    index.with_name(FIRST).unlink()
    index.with_name(SECOND).write_bytes(b"not a checkpoint")
    with pytest.raises(SourceError) as caught:
        open_source(index)
    assert [(finding.code, finding.where) for finding in caught.value.findings] == [
        ("absent", str(index.with_name(FIRST))),
        ("header", str(index.with_name(SECOND))),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "a/../model.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        "model.safetensors:stream.safetensors",
        "model\0.safetensors",
        "model\n.safetensors",
        "model\u202e.safetensors",
        "model\u2215x.safetensors",
        "model\uff0fx.safetensors",
        "mode\u0301l.safetensors",
        "model*.safetensors",
        "CON.safetensors",
        "lpt1.x.safetensors",
        "model.SAFETENSORS",
        "pytorch_model.bin",
        "..",
        "",
    ],
)
def test_a_shard_is_named_by_one_component_that_ends_in_safetensors(index: Path, name: str) -> None:
    write_index(index.parent, {**WEIGHT_MAP, "a": name})
    ((what, _, expected, got),) = findings(index)
    assert what == "a shard's name is not fit"
    assert expected == "one name of letters, digits and . _ - that ends in .safetensors"
    assert got == ascii(name)


def test_two_names_of_one_file_are_two_holders_of_each_tensor(index: Path) -> None:
    twin = index.with_name("twin.safetensors")
    twin.symlink_to(FIRST)
    write_index(index.parent, {**WEIGHT_MAP, "b": twin.name})
    assert findings(index) == [
        ("a tensor that several shards hold", name, place, f"{FIRST}, {twin.name}")
        for name, place in (("a", FIRST), ("b", twin.name))
    ]


def test_shards_whose_names_some_file_systems_confuse_are_refused(index: Path) -> None:
    write_index(index.parent, {**WEIGHT_MAP, "a": FIRST.upper()[:5] + FIRST[5:]})
    ((what, _, _, got),) = findings(index)
    assert what == "two shards' names differ in upper and lower case only"
    assert got == f"MODEL-00001-of-00002.safetensors, {FIRST}"


def test_an_index_of_more_shards_than_any_checkpoint_has_is_refused(index: Path) -> None:
    write_index(index.parent, {f"t{n}": f"{n}.safetensors" for n in range(10_001)})
    assert findings(index) == [
        ("too many shards are listed", None, "at most 10,000 files", "10,001")
    ]


@pytest.mark.parametrize("name", ["model-00001 (1).safetensors", "重み@fp16+x.safetensors"])
def test_a_shard_may_have_letters_of_any_script_and_blanks(index: Path, name: str) -> None:
    index.with_name(FIRST).rename(index.with_name(name))
    write_index(index.parent, {**WEIGHT_MAP, "a": name, "b": name})
    with open_source(index) as source:
        assert source.read("a") == VALUES["a"].tobytes()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": []}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}}',
        '{"weight_map": {"a\\u001b[2J": "x.safetensors"}}',
        "{",
        "",
    ],
)
def test_what_is_no_index_is_refused(tmp_path: Path, text: str) -> None:
    index = tmp_path / INDEX
    index.write_text(text)
    with pytest.raises(SourceError) as caught:
        open_source(index)
    assert str(caught.value).startswith(str(index))


def test_shards_of_a_linked_index_lie_beside_the_link(index: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"  # as in the cache of the Hugging Face Hub
    blobs.mkdir()
    for name in (INDEX, FIRST, SECOND):
        index.with_name(name).rename(blobs / name)
        index.with_name(name).symlink_to(blobs / name)
    (blobs / FIRST).rename(blobs / "0123")
    index.with_name(FIRST).unlink()
    index.with_name(FIRST).symlink_to(blobs / "0123")
    with open_source(index) as source:
        assert source.read("a") == VALUES["a"].tobytes()


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_nothing_is_left_open_after_a_refusal(index: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    write_index(index.parent, {"a": FIRST, "z": SECOND})
    with pytest.raises(SourceError):
        open_source(index)
    assert len(os.listdir("/proc/self/fd")) == before
