"""A pipeline's published files become the folder that its conversion takes, or nothing does."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from bundles import HEADERS as SOURCES
from bundles import PREFIXES, contents, convert_small, small_tensors, small_text, write_small
from click.testing import CliRunner
from pickles import contents as tensors_in
from pickles import in_this_process as in_this_process
from pickles import nested, save, tensors_of
from safetensors.torch import save_file

from converter import api, resources
from converter.cli import main
from converter.errors import ExecutionError, SourceError
from converter.finding import Finding

in_here = pytest.mark.usefixtures("in_this_process")


def write_published(folder: Path, *, wrap_gpt: bool = True) -> None:
    """Write what IndexTTS2 is published as, every name of it, with small tensors."""
    tensors = {source: tensors_of(header) for source, header in SOURCES["indextts2"].items()}
    s2mel = {name.removeprefix("net."): tensor for name, tensor in tensors["s2mel"].items()}
    bigvgan = {name.removeprefix("generator."): t for name, t in tensors["bigvgan"].items()}
    folder.mkdir()
    save(folder / "gpt.pth", {"model": tensors["gpt"]} if wrap_gpt else tensors["gpt"])
    net = nested(s2mel, "cfm", "length_regulator", "gpt_layer")
    save(folder / "s2mel.pth", {"net": net, "optimizer": [("cfm", {})], "iters": 1})
    save(folder / "wav2vec2bert_stats.pt", tensors["stats"], is_archive=False)
    save(folder / "campplus_cn_common.bin", tensors["campplus"])
    save(folder / "bigvgan_generator.pt", {"generator": bigvgan})
    for source, file in (("w2v", "w2v-bert-2.0"), ("codec", "semantic_codec")):
        (folder / file).mkdir()
        save_file(tensors[source], folder / file / "model.safetensors")


@in_here
@pytest.mark.parametrize("wrap_gpt", [True, False], ids=["gpt in model", "gpt bare"])
def test_a_whole_pipeline_imports_to_the_names_that_its_models_read(
    wrap_gpt: bool, tmp_path: Path
) -> None:
    write_published(tmp_path / "in", wrap_gpt=wrap_gpt)
    said: list[Finding] = []
    made = api.import_bundle("indextts2", tmp_path / "in", tmp_path / "out", notice=said.append)
    (bundle_file,) = (b for b in api.bundles() if b.bundle == "indextts2")
    for source, header in SOURCES["indextts2"].items():
        prefix = PREFIXES["indextts2"].get(source, "")
        expected = {name.removeprefix(prefix): t for name, t in tensors_of(header).items()}
        found = tensors_in(tmp_path / "out" / bundle_file.sources[source].file)
        assert {name: data for name, (_, _, data) in found.items()} == {
            name: tensor.numpy().tobytes() for name, tensor in expected.items()
        }
    assert {*made.imported} == {"stats", "gpt", "s2mel", "campplus", "bigvgan"}
    assert {*made.copied} == {"w2v", "codec"}
    assert made.imported["gpt"].selection.unwrapped == ("model" if wrap_gpt else "")
    assert [finding.code for finding in said] == ["whole-in-memory"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "gpt.safetensors",
        "s2mel.safetensors",
        "wav2vec2bert_stats.safetensors",
        "campplus_cn_common.safetensors",
        "bigvgan_generator.safetensors",
        "w2v-bert-2.0",
        "semantic_codec",
    }
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


SMALL = {
    "gpt: {file: gpt.safetensors": "import: {file: gpt.pth, unwrap: model, bare: true}",
    "decoder: {file: decoder.safetensors": "import: {file: decoder.pth}",
}


def write_small_published(folder: Path) -> Path:
    """Write the small bundle of real originals as it would be published, and its bundle file."""
    text = small_text()
    for source, original in SMALL.items():
        assert source in text
        text = text.replace(source, f"{source}, {original}")
    tensors = small_tensors()
    published = folder / "published"
    (published / "lm").mkdir(parents=True)
    save(published / "gpt.pth", {"model": tensors["gpt"]})
    save(published / "decoder.pth", tensors["decoder"])
    save_file(tensors["lm"], published / "lm" / "model.safetensors")
    path = folder / "published.yaml"
    path.write_text(text)
    return path


@in_here
def test_what_is_imported_converts_to_the_same_as_its_safetensors(tmp_path: Path) -> None:
    path = write_small_published(tmp_path)
    write_small(tmp_path, small_tensors())
    api.import_bundle(str(path), tmp_path / "published", tmp_path / "imported")
    ours = api.convert_bundle(str(path), tmp_path / "imported", tmp_path / "ours")
    theirs = convert_small(tmp_path, "theirs")
    assert {name: made.content_sha256 for name, made in ours.record.members.items()} == {
        name: made.content_sha256 for name, made in theirs.record.members.items()
    }


@in_here
def test_all_originals_that_are_absent_or_wrong_are_reported_at_once(tmp_path: Path) -> None:
    path = write_small_published(tmp_path)
    published = tmp_path / "published"
    (published / "gpt.pth").unlink()
    save(published / "decoder.pth", {"a": torch.ones(2), "epoch": 3})
    (published / "lm" / "model.safetensors").write_bytes(b"")
    with pytest.raises(SourceError) as caught:
        api.import_bundle(str(path), published, tmp_path / "out")
    found = {(Path(f.where or "").name, f.code) for f in caught.value.findings}
    assert found == {
        ("gpt.pth", "absent"),
        ("decoder.pth", "content"),
        ("model.safetensors", "header"),
    }
    assert not (tmp_path / "out").exists()


@in_here
def test_a_target_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    path = write_small_published(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(ExecutionError, match="not empty"):
        api.import_bundle(str(path), tmp_path / "published", tmp_path / "out")
    assert contents(tmp_path / "out") == {"mine": b"precious"}


@in_here
def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    path = write_small_published(tmp_path)
    before = {*tmp_path.iterdir()}
    done = 0

    def fail(step: int, total: int) -> None:
        nonlocal done
        done += step
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.import_bundle(str(path), tmp_path / "published", tmp_path / "out", progress=fail)
    assert {*tmp_path.iterdir()} == before


@in_here
def test_shards_are_copied_with_their_index(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "big"
    folder.mkdir(parents=True)
    index = {"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}
    for name, file in index["weight_map"].items():
        save_file({name: torch.ones(2)}, folder / file)
    (folder / "x.safetensors.index.json").write_text(json.dumps(index))
    (folder / "notes.txt").write_text("not of the checkpoint")
    for file in ("big", "big/x.safetensors.index.json"):
        text = re.sub("lm/model.safetensors", file, small_text())
        text = text[: text.index("sources:")] + f"sources:\n  lm: {{file: {file}}}\n"
        text += "members:\n  lm: {source: lm, model: soprano-lm}\n"
        path = tmp_path / "b.yaml"
        path.write_text(text)
        out = tmp_path / "out" / Path(file).name
        api.import_bundle(str(path), tmp_path / "in", out)
        copied = {k: v for k, v in contents(tmp_path / "in").items() if "notes" not in k}
        assert contents(out) == copied


@in_here
def test_the_command_reports_by_its_schema(tmp_path: Path) -> None:
    path = write_small_published(tmp_path)
    arguments = [tmp_path / "published", tmp_path / "out", "--bundle", path, "--json"]
    done = CliRunner().invoke(main, ["import", *map(str, arguments)])
    report: Any = json.loads(done.stdout)
    jsonschema.validate(report, resources.schema("report"))
    assert report["exit_code"] == done.exit_code == 0
    assert {*report["result"]["imported"]} == {"gpt", "decoder"}
    assert [f["name"] for f in report["result"]["copied"]["lm"]] == ["lm/model.safetensors"]
    shown = CliRunner().invoke(main, ["models", "indextts2", "--json"])
    sources = json.loads(shown.stdout)["result"]["bundles"][0]["sources"]
    assert sources["s2mel"]["import"] == {"file": "s2mel.pth", "unwrap": "net", "bare": False}
    assert sources["w2v"]["import"] is None


def test_the_page_lists_the_files_that_a_pipeline_is_published_as() -> None:
    page = (Path(__file__).parent.parent / "docs" / "import.md").read_text()
    for bundle in api.bundles():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{bundle.bundle}` |"))
        files = {s.original.file if s.original else s.file for s in bundle.sources.values()}
        assert {*re.findall(r"`([^`]+)`", row)} == {bundle.bundle, *files}
