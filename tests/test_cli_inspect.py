"""The command line of inspect: its options reach the library, and its answer is by the schema."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import command_line
import pytest
from bundles import convert_small, small_tensors, write_small
from click.testing import CliRunner
from toy import toy_tensors, write_rules, write_source

from converter.cli import main

answer = partial(command_line.answer, "inspect")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the toy's checkpoint and what was converted of it."""
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path, toy_tensors())
    write_rules(tmp_path)
    done = CliRunner().invoke(main, ["toy.safetensors", "out", "--rules", "toy.yaml"])
    assert done.exit_code == 0
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--tree",),
        ("--flat",),
        ("--whole",),
        ("--stats",),
        ("--digests", "--jobs", "2"),
        ("--stats", "--digests", "--tree", "--sort", "size", "--quiet"),
        ("--filter", "net.layers.", "--filter", "optimizer", "--sort", "name"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("source", ["toy.safetensors", "out"])
def test_every_option_answers_by_the_schema(
    here: Path, source: str, options: Sequence[str]
) -> None:
    if source == "out":
        options = [
            word.replace("net.layers.", "blocks.").replace("optimizer", "mask") for word in options
        ]
    result = answer(source, *options)["result"]
    assert ("values" in result) == ("--stats" in options or "--digests" in options)
    assert ("prefixes" in result) == ("--tree" in options)
    assert (result["held"] > result["totals"]["tensors"]) == ("--filter" in options)
    assert (result["canonical"] is not None) == (source == "out")
    rows = sum(row["count"] for row in result["rows"])
    assert rows == len(result["tensors"]) == result["totals"]["tensors"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("toy.safetensors", "--tree", "--flat"), 2, "one of --tree and --flat"),
        (("toy.safetensors", "--filter", "nett."), 2, "no name begins with 'nett.'"),
        (("toy.safetensors", "--sort", "shape"), 2, "is not one of"),
        (("toy.safetensors", "--stats", "--jobs", "0"), 2, "not in the range"),
        (("header.json", "--stats"), 4, "a header alone has no values"),
        (("absent.safetensors", "--tree"), 4, "there is no such file"),
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_refused(
    here: Path, arguments: Sequence[str], code: int, words: str
) -> None:
    (here / "header.json").write_text('{"w": {"dtype": "F32", "shape": [1]}}')
    result = CliRunner().invoke(main, ["inspect", *arguments])
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert answer(*arguments)["exit_code"] == code


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("net.layer.0.", "net.layers.0."),
        ("net.leyers", "net.layers"),
        ("ent.layers.0", "net.layers.0"),
    ],
)
def test_a_prefix_that_no_name_has_is_told_the_nearest(here: Path, given: str, meant: str) -> None:
    (finding,) = answer("toy.safetensors", "--filter", given)["findings"]
    assert finding["got"].startswith("13 names, such as ")
    assert finding["hint"] == f"did you mean {meant!r}?"


def test_a_converted_bundle_names_its_members(tmp_path: Path) -> None:
    write_small(tmp_path, small_tensors())
    convert_small(tmp_path)
    document = answer(str(tmp_path / "out"))
    (finding,) = document["findings"]
    assert (document["exit_code"], finding["code"]) == (4, "ambiguous")
    assert finding["hint"] == f"convert inspect {tmp_path / 'out' / finding['got'].split(',')[0]}"
    assert answer(finding["hint"].split()[-1])["result"]["canonical"] is not None
