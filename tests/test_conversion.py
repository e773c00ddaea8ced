import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file, save_file
from torch import Tensor
from toy import RULES, convert, one, refusal, toy_tensors, write_rules, write_source

from converter import api, resources
from converter.errors import ConverterError
from converter.runtime import load_tensors


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def canonical_toy() -> dict[str, Tensor]:
    """What the rules make of the toy, written from the rules by hand."""
    source = {name.removeprefix("net."): tensor for name, tensor in toy_tensors().items()}
    made = {name: source[name] for name in ("steps_taken", "mask", "nothing")}
    made["embedding.weight"] = source["embedding"]
    for i in range(2):
        for word, rows in zip("qkv", source[f"layers.{i}.qkv"].chunk(3), strict=True):
            made[f"blocks.{i}.{word}.weight"] = rows
        g, v = source[f"layers.{i}.g"].double(), source[f"layers.{i}.v"].double()
        made[f"blocks.{i}.out.weight"] = (v * (g / v.norm(dim=1, keepdim=True))).float()
        made[f"blocks.{i}.norm.weight"] = torch.ones(4)
    return made


# What is made


def test_every_tensor_is_what_its_rule_makes_of_the_source(tmp_path: Path) -> None:
    convert(tmp_path, toy_tensors())
    got, expected = load_file(tmp_path / "out" / "model.safetensors"), canonical_toy()
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        assert got[name].equal(tensor), name


def test_data_starts_at_a_page_and_whole_rows_of_256_bytes_are_aligned(tmp_path: Path) -> None:
    tensors = {"w": torch.zeros(64), "odd": torch.zeros(3), "x": torch.zeros(128)}
    rules = "dtypes: [F32]\nrules:\n" + "".join(
        f"  - from: {name}\n    to: {{{name}: [{len(tensor)}]}}\n"
        for name, tensor in tensors.items()
    )
    convert(tmp_path, tensors, rules)
    file = tmp_path / "out" / "model.safetensors"
    start = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert start % 4096 == 0
    header = json.loads(file.read_bytes()[8:start])
    assert header.pop("__metadata__") == {"format": "pt", "canonical": "1"}
    assert {name: entry["data_offsets"] for name, entry in header.items()} == {
        "w": [0, 256],
        "x": [256, 768],
        "odd": [768, 780],
    }


def test_other_readers_find_the_same_tensors(tmp_path: Path) -> None:
    convert(tmp_path, toy_tensors())
    file, expected = tmp_path / "out" / "model.safetensors", canonical_toy()
    with safe_open(file, framework="np") as opened:
        assert set(opened.keys()) == expected.keys()
        assert opened.metadata() == {"format": "pt", "canonical": "1"}
        for name in expected:
            assert (opened.get_tensor(name) == expected[name].numpy()).all(), name
    for name, array in load_numpy(file).items():
        assert array.shape == tuple(expected[name].shape)
        assert (array == expected[name].numpy()).all(), name


def test_an_alias_is_the_tensor_that_it_stands_for_and_is_not_stored(tmp_path: Path) -> None:
    manifest = convert(tmp_path, toy_tensors()).manifest
    assert manifest.aliases == {"head.weight": "embedding.weight"}
    assert "head.weight" not in {tensor.name for tensor in manifest.tensors}
    loaded = load_tensors(tmp_path / "out", check="full")
    assert loaded["head.weight"] is loaded["embedding.weight"]


def test_shards_hold_the_same_content_as_one_file(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    whole = convert(tmp_path / "one", toy_tensors()).manifest
    shards = convert(tmp_path, toy_tensors(), max_shard_size="200B").manifest
    assert shards.content_sha256 == whole.content_sha256
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": whole.totals.bytes}
    found = {
        name: tensor
        for file in sorted(set(index["weight_map"].values()))
        for name, tensor in load_file(tmp_path / "out" / file).items()
    }
    assert len(set(index["weight_map"].values())) > 1
    assert found.keys() == index["weight_map"].keys() == canonical_toy().keys()
    assert all(found[name].equal(tensor) for name, tensor in canonical_toy().items())


def test_a_sharded_source_gives_the_same_weights_as_one_file(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    tensors, names = toy_tensors(), sorted(toy_tensors())
    weight_map = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(names)}
    for file in set(weight_map.values()):
        part = {name: tensors[name] for name in names if weight_map[name] == file}
        save_file(part, tmp_path / "parts" / file)
    index = tmp_path / "parts" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    whole = convert(tmp_path, tensors)
    rules = write_rules(tmp_path)
    parts = api.convert(tmp_path / "parts", tmp_path / "from-parts", rules=rules)
    by_index = api.convert(index, tmp_path / "by-index", rules=rules)
    assert parts.manifest.content_sha256 == whole.manifest.content_sha256
    assert [file.name for file in parts.manifest.sources] == [
        "part-0.safetensors",
        "part-1.safetensors",
    ]
    first, second, third = (contents(tmp_path / name) for name in ("out", "from-parts", "by-index"))
    assert first["model.safetensors"] == second["model.safetensors"]
    assert second == third
    assert by_index.manifest == parts.manifest


# What the manifest says


def test_the_manifest_says_where_each_tensor_came_from(tmp_path: Path) -> None:
    tensors = {tensor.name: tensor for tensor in convert(tmp_path, toy_tensors()).manifest.tensors}
    assert tensors["embedding.weight"].sources == ("net.embedding",)
    assert tensors["embedding.weight"].steps == ()
    assert tensors["blocks.1.k.weight"].sources == ("net.layers.1.qkv",)
    assert tensors["blocks.1.k.weight"].steps == ({"split": {"dim": 0, "sizes": [4, 4, 4]}},)
    assert tensors["blocks.0.out.weight"].sources == ("net.layers.0.g", "net.layers.0.v")
    assert tensors["blocks.0.out.weight"].steps == ({"fold_weight_norm": {"dim": 0}},)


def test_the_manifest_says_what_was_left_out_and_what_stands_in(tmp_path: Path) -> None:
    manifest = convert(tmp_path, toy_tensors()).manifest
    assert [(drop.name, drop.because, drop.proven) for drop in manifest.dropped] == [
        ("net.positions", "rebuilt by the network", "arange"),
        ("net.head", "the head is tied", "equals net.embedding"),
    ]
    assert [(item.name, item.value, item.sources) for item in manifest.stand_ins] == [
        ("blocks.0.norm.weight", "ones", ("net.layers.0.norm",)),
        ("blocks.1.norm.weight", "ones", ("net.layers.1.norm",)),
    ]
    assert manifest.out_of_scope == 1


def test_a_source_that_is_there_needs_no_stand_in(tmp_path: Path) -> None:
    norms = {f"net.layers.{i}.norm": torch.full((4,), 2.0 + i) for i in range(2)}
    manifest = convert(tmp_path, toy_tensors() | norms).manifest
    assert manifest.stand_ins == ()
    loaded = load_tensors(tmp_path / "out")
    assert loaded["blocks.1.norm.weight"].tolist() == [3.0] * 4


def test_the_manifest_names_the_model_the_rules_and_every_file(tmp_path: Path) -> None:
    manifest = convert(tmp_path, toy_tensors()).manifest
    assert manifest.model.dims == {"layers": 2, "hidden": 4, "vocab": 6}
    assert manifest.model.conventions == {"norm_eps": 1e-5}
    assert manifest.rules.file == "toy.yaml"
    assert manifest.rules.sha256 == hashlib.sha256(RULES.encode()).hexdigest()
    for record, folder in [*((s, tmp_path) for s in manifest.sources)] + [
        (file, tmp_path / "out") for file in manifest.files
    ]:
        data = (folder / record.name).read_bytes()
        assert (record.size, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_options_that_change_the_result_are_recorded(tmp_path: Path) -> None:
    bare = {
        f"x.{name.removeprefix('net.')}": tensor
        for name, tensor in toy_tensors().items()
        if name != "optimizer"
    }
    options = {"dtype": "bf16", "scope": "", "source_prefix": "x."}
    manifest = convert(tmp_path, bare, jobs=2, max_shard_size="1GB", **options).manifest
    assert manifest.rules.options == options | {"dtype": "BF16"}
    by_name = {tensor.name: tensor for tensor in manifest.tensors}
    assert by_name["embedding.weight"].dtype == "BF16"
    assert by_name["embedding.weight"].steps == ({"cast": {"dtype": "BF16"}},)
    assert by_name["steps_taken"].dtype == "I64"


def test_the_manifest_holds_no_path_and_satisfies_its_schema(tmp_path: Path) -> None:
    convert(tmp_path, toy_tensors(), max_shard_size="200B")
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    jsonschema.validate(json.loads(text), resources.schema("manifest"))


def test_sums_are_those_of_every_other_file(tmp_path: Path) -> None:
    convert(tmp_path, toy_tensors(), max_shard_size="200B")
    files = contents(tmp_path / "out")
    lines = files.pop("SHA256SUMS").decode().splitlines()
    assert lines == [f"{hashlib.sha256(data).hexdigest()}  {name}" for name, data in files.items()]


def test_progress_is_told_of_every_byte_once(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    manifest = convert(
        tmp_path, toy_tensors(), progress=lambda done, total: told.append((done, total))
    ).manifest
    assert sum(done for done, _ in told) == manifest.totals.bytes
    assert {total for _, total in told} == {manifest.totals.bytes}


# What stops a conversion, and what it leaves


def test_an_output_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    convert(tmp_path, toy_tensors())
    before = contents(tmp_path / "out")
    with pytest.raises(ConverterError) as caught:
        convert(tmp_path, toy_tensors(), dtype="bf16")
    assert caught.value.exit_code == 6
    assert "--overwrite" in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_overwriting_replaces_the_output_whole(tmp_path: Path) -> None:
    convert(tmp_path, toy_tensors(), max_shard_size="200B")
    convert(tmp_path, toy_tensors(), dtype="bf16", overwrite=True)
    assert set(contents(tmp_path / "out")) == {"SHA256SUMS", "manifest.json", "model.safetensors"}
    assert api.verify(tmp_path / "out").holds
    assert {path.name for path in tmp_path.iterdir()} == {"toy.safetensors", "toy.yaml", "out"}


def test_a_refused_overwrite_leaves_the_old_output(tmp_path: Path) -> None:
    convert(tmp_path, toy_tensors())
    before = contents(tmp_path / "out")
    broken = toy_tensors() | {"net.positions": torch.arange(1, 17)}
    with pytest.raises(ConverterError) as caught:
        convert(tmp_path, broken, overwrite=True)
    assert caught.value.exit_code == 6
    assert contents(tmp_path / "out") == before


def test_a_header_alone_is_planned_but_not_converted(tmp_path: Path) -> None:
    source = tmp_path / "toy.json"
    source.write_text('{"w": {"dtype": "F32", "shape": [2]}}')
    rules = write_rules(tmp_path, one("F32", "[2]"))
    assert api.plan(source, rules=rules).used == 1
    with pytest.raises(ConverterError, match="can be planned, not converted") as caught:
        api.convert(source, tmp_path / "out", rules=rules)
    assert caught.value.exit_code == 4
    assert {path.name for path in tmp_path.iterdir()} == {"toy.json", "toy.yaml"}


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def touched(path: Path) -> None:
    os.utime(path, ns=(0, 0))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("change", [appended, touched, cut])
def test_a_source_that_changes_meanwhile_is_no_source(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    source = write_source(tmp_path, toy_tensors())

    def meddle(done: int, total: int) -> None:
        if not meddled:
            meddled.append(True)
            change(source)

    meddled: list[bool] = []
    rules = write_rules(tmp_path)
    with pytest.raises(ConverterError) as caught:
        api.convert(source, tmp_path / "out", rules=rules, jobs=1, progress=meddle)
    assert caught.value.exit_code == 4
    assert {path.name for path in tmp_path.iterdir()} == {"toy.safetensors", "toy.yaml"}


def test_an_error_outside_of_the_program_s_own_leaves_nothing_either(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise ZeroDivisionError

    source, rules = write_source(tmp_path, toy_tensors()), write_rules(tmp_path)
    with pytest.raises(ZeroDivisionError):
        api.convert(source, tmp_path / "out", rules=rules, progress=fail)
    assert {path.name for path in tmp_path.iterdir()} == {"toy.safetensors", "toy.yaml"}


def test_nothing_is_written_when_rules_and_source_do_not_fit(tmp_path: Path) -> None:
    tensors = toy_tensors()
    del tensors["net.layers.1.qkv"]
    error = refusal(tmp_path, tensors)
    assert error.exit_code == 5
    assert [finding.tensor for finding in error.findings] == ["net.layers.1.qkv"]


def test_weights_that_nobody_trained_are_reported_but_converted(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {str(n): 0.02 * torch.randn(64, 64, generator=generator) for n in range(4)}
    tensors = {name: tensor - tensor.mean() for name, tensor in tensors.items()}
    rules = "dtypes: [F32]\nindex: {i: 4}\nrules:\n  - from: '{i}'\n    to: {'{i}': [64, 64]}\n"
    conversion = convert(tmp_path, tensors, rules)
    assert [warning.code for warning in conversion.warnings] == ["looks-initialised"]
    assert conversion.warnings[0].severity == "warning"
    assert api.verify(tmp_path / "out").holds


def test_values_that_a_cast_flushes_to_zero_are_reported(tmp_path: Path) -> None:
    tensors = {"w": torch.tensor([1.0, 1e-9, 0.0, -2e-9])}
    conversion = convert(tmp_path, tensors, one("F32", "[4]"), dtype="f16")
    (warning,) = conversion.warnings
    assert (warning.code, warning.tensor, warning.severity) == ("underflow", "w", "warning")
    assert str(warning.got).startswith("2 of 4 values")
