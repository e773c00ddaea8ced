"""The command line of explain: what it answers, as text and by the schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import command_line
import pytest
from click.testing import CliRunner
from doc_pages import follow
from test_without_torch import run_bare
from toy import convert, toy_tensors

from converter import api
from converter.cli import main
from converter.report_explain import of_explanation

RULES = ("toy.safetensors", "--rules", "toy.yaml")

answer = partial(command_line.answer, "explain")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("explain")
    convert(made, toy_tensors())
    return made


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work where there is the toy's source, its rules, and what was made of them in ``out``."""
    monkeypatch.chdir(folder)
    return folder


def text(*arguments: str) -> list[str]:
    result = CliRunner().invoke(main, ["explain", *arguments])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


def test_the_text_traces_a_tensor_of_a_plan_line_by_line(here: Path) -> None:
    assert text("net.layers.1.qkv", *RULES) == [
        "toy, as it would be made by toy.yaml",
        "",
        "net.layers.1.qkv F32 [12, 4]: a source tensor",
        "  rule    toy.yaml:17 with i = 1",
        "  source  net.layers.1.qkv F32 [12, 4]",
        "  step    split {dim: 0, sizes: [4, 4, 4]} → F32 [4, 4] ×3",
        "  target  blocks.1.q.weight F32 [4, 4]",
        "            model.safetensors from byte 4,352, 64 B",
        "  target  blocks.1.k.weight F32 [4, 4]",
        "            model.safetensors from byte 4,416, 64 B",
        "  target  blocks.1.v.weight F32 [4, 4]",
        "            model.safetensors from byte 4,480, 64 B",
    ]


def test_the_text_has_digest_and_statistics_of_what_was_made(here: Path) -> None:
    lines = text("embedding.weight", "out")
    assert lines[0] == "toy, as it was made from toy.safetensors by toy.yaml"
    (digest,) = [line for line in lines if "sha256" in line]
    assert len(digest.split()[1]) == 64
    assert lines[-1].split() == ["mean", "12.5,", "std", "6.92219,", "from", "1", "to", "24"]


def test_the_text_says_why_a_tensor_is_dropped(here: Path) -> None:
    assert text("net.positions", "out")[2:] == [
        "net.positions I64 [16]: a source tensor that is dropped",
        "  because  rebuilt by the network",
        "  values   arange, shown to be so",
    ]
    (line,) = [line for line in text("net.positions", *RULES) if "values" in line]
    assert line.split() == ["values", "arange,", "to", "be", "shown"]


def test_the_text_names_a_stand_in_and_an_alias(here: Path) -> None:
    lines = text("net.layers.0.norm", "out")
    assert lines[2] == "net.layers.0.norm: a source tensor that is not there"
    assert [line.split() for line in lines[3:5]] == [
        ["absent", "net.layers.0.norm"],
        ["stand-in", "ones"],
    ]
    alias = "head.weight F32 [6, 4]: an alias of embedding.weight"
    assert alias in text("head.weight", "out")


def test_tensors_of_one_rule_share_one_picture(here: Path) -> None:
    lines = text("blocks.0.**", "out")
    assert [line.split()[0] for line in lines if line.endswith("a canonical tensor")] == [
        f"blocks.0.{name}.weight" for name in ("q", "k", "v", "out", "norm")
    ]
    assert sum("split" in line for line in lines) == 1


@pytest.mark.parametrize(
    "arguments",
    [("**", "out"), ("**", *RULES), ("**", *RULES, "--dtype", "bf16", "--max-shard-size", "100")],
    ids=" ".join,
)
def test_every_name_is_answered_by_the_schema(here: Path, arguments: Sequence[str]) -> None:
    result = answer(*arguments)["result"]
    kinds = {role["kind"] for role in result["roles"]}
    assert kinds >= {"canonical", "alias", "source", "dropped", "absent"}
    for role in result["roles"]:
        if role["kind"] in ("canonical", "source"):
            trace = result["traces"][role["trace"]]
            side = "targets" if role["kind"] == "canonical" else "sources"
            assert role["name"] in {item["name"] for item in trace[side]}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("blocks.0.q", "out"), 2),
        (("mask", "toy.safetensors"), 2),
        (("mask", "toy.safetensors", "--model", "toi"), 2),
        (("mask", "."), 4),
        (("mask", "absent"), 4),
        (("mask", *RULES, "--set", "layers=1"), 5),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_explained_has_an_exit_code(
    here: Path, arguments: Sequence[str], code: int
) -> None:
    document = answer(*arguments)
    assert (document["command"], document["exit_code"]) == ("explain", code)
    assert document["findings"]
    assert document["result"] == {}


def test_the_library_and_the_command_line_say_the_same(here: Path) -> None:
    report = of_explanation(api.explain("mask", "out"))
    assert report.text.splitlines() == text("mask", "out")
    assert json.loads(report.as_json()) == answer("mask", "out")


@pytest.mark.parametrize("arguments", [("**", "out"), ("**", *RULES)], ids=" ".join)
def test_it_needs_neither_torch_nor_numpy(here: Path, arguments: Sequence[str]) -> None:
    done = run_bare("explain", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == text(*arguments)


def test_the_page_says_what_the_command_prints(tmp_path: Path) -> None:
    assert follow(Path(__file__).parent.parent / "docs" / "explain.md", tmp_path) > 1
