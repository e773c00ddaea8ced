"""Every crafted file as a user meets it: the exit code, one finding of one line, nothing behind."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from crafted_files import NOT_CONVERTED, REFUSED, TAKEN, Case, named

from converter import api
from converter.cli import main
from converter.runtime import load_tensors
from converter.source import open_source
from converter.spec import DTYPES


def arguments(source: Path, *rules: str) -> list[list[str]]:
    """The commands that read a checkpoint."""
    return [
        ["inspect", str(source)],
        ["plan", *rules, str(source)],
        ["convert", *rules, str(source), str(source.with_name("out"))],
    ]


def test_every_case_that_was_measured_is_there() -> None:
    numbers = [name[:2] for name in (*REFUSED, *TAKEN) if name[:2].isdecimal()]
    assert sorted(numbers) == [f"{number:02}" for number in range(69)]


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_not_plain_is_refused_by_every_command(case: Case, tmp_path: Path) -> None:
    source = tmp_path / "crafted.safetensors"
    source.write_bytes(case())
    for command in arguments(source, "--model", "dit"):
        shown = CliRunner().invoke(main, command)
        assert shown.exit_code == 4
        assert shown.stdout == ""
        first, *rest = shown.stderr.splitlines()
        assert first.startswith(f"error: {source}: ")
        assert all(line.startswith("  ") for line in rest)
        assert all(line.isascii() and line.isprintable() for line in (first, *rest))
        assert len(shown.stderr) < 1000
    told = CliRunner().invoke(main, ["inspect", str(source), "--json"])
    assert told.exit_code == 4
    assert told.stdout.isascii()
    report: Any = json.loads(told.stdout)
    (finding,) = report["findings"]
    assert finding["code"] in {"header", "json"}
    assert finding["what"].isprintable()
    assert list(tmp_path.iterdir()) == [source]


def rules_for(source: Path) -> Path:
    """Write rules that take every tensor of a checkpoint as it is."""
    header = api.inspect(source).header
    rules = [
        f'  - {{from: "{name}", to: {{t{number}: {list(spec.shape)}}}}}\n'
        for number, (name, spec) in enumerate(header.items())
    ]
    head = f"format: 1\nmodel: any\ntitle: any\norigin: any\ndtypes: [{', '.join(DTYPES)}]\n"
    path = source.with_name("any.yaml")
    path.write_text(f"{head}rules:\n{''.join(rules) or '  - {from: a, to: {b: []}}'}\n")
    return path


@pytest.mark.parametrize("name", TAKEN)
def test_an_odd_but_plain_file_is_converted_unless_its_values_are_wrong(
    name: str, tmp_path: Path
) -> None:
    source = tmp_path / "crafted.safetensors"
    source.write_bytes(TAKEN[name]())
    rules = rules_for(source)
    inspect, plan, convert = arguments(source, "--rules", str(rules))
    exit_code = NOT_CONVERTED.get(name, 0)
    shown = CliRunner().invoke(main, inspect)
    assert shown.exit_code == 0
    assert all(line.isprintable() for line in shown.output.splitlines())
    assert CliRunner().invoke(main, plan).exit_code == (5 if exit_code == 5 else 0)
    done = CliRunner().invoke(main, convert)
    assert done.exit_code == exit_code, done.output
    assert all(line.isprintable() for line in done.output.splitlines())
    if exit_code:
        assert sorted(tmp_path.iterdir()) == [rules, source]
        return
    out = tmp_path / "out"
    assert CliRunner().invoke(main, ["verify", str(out)]).exit_code == 0
    with open_source(source) as opened, open_source(out) as made:
        for number, tensor in enumerate(opened.header):
            assert made.read(f"t{number}") == opened.read(tensor)


def test_what_the_rule_file_says_of_values_and_names_is_told_with_the_tensor(
    tmp_path: Path,
) -> None:
    source = tmp_path / "crafted.safetensors"
    for name, code in (("51 NaN and infinity", "nonfinite"), ("52 boolean of 2", "boolean")):
        source.write_bytes(TAKEN[name]())
        command = arguments(source, "--rules", str(rules_for(source)))[2]
        report: Any = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
        (finding,) = report["findings"]
        assert finding["code"] == code
        assert finding["tensor"] in {"a", "t0"}


def test_a_name_like_a_path_stays_a_name(tmp_path: Path) -> None:
    source = tmp_path / "inner" / "crafted.safetensors"
    source.parent.mkdir()
    source.write_bytes(TAKEN["43 name like a path"]())
    command = arguments(source, "--rules", str(rules_for(source)))[2]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner"]
    assert load_tensors(source.with_name("out"))["t0"].dtype == torch.float32


INDICES = {
    "a path": {"a": "../../etc/x.safetensors"},
    "a whole path": {"a": "/etc/x.safetensors"},
    "a path of Windows": {"a": "C:\\x.safetensors"},
    "NUL": {"a": "x\0.safetensors"},
    "a device of Windows": {"a": "CON.safetensors"},
    "a slash of another kind": {"a": "x\u2215y.safetensors"},
    "escapes in a file": {"a": "\x1b[2J\u202e.safetensors"},
    "escapes in a tensor": {"\x1b[2J\u202e": "x.safetensors"},
    "what is not there": {"a": "x.safetensors", "b": "absent.safetensors"},
    "a tensor that is not there": {"a": "x.safetensors", "b": "x.safetensors"},
    "a tensor less": {"b": "x.safetensors"},
    "a pipe": {"a": "pipe.safetensors"},
    "a folder": {"a": "folder.safetensors"},
    "a link out of the folder": {"a": "link.safetensors"},
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
@pytest.mark.parametrize("weight_map", INDICES.values(), ids=INDICES)
def test_a_crafted_index_is_refused_by_every_command(
    weight_map: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "x.safetensors").write_bytes(named("a"))
    (tmp_path / "private").write_bytes(named("a"))
    (folder / "link.safetensors").symlink_to(tmp_path / "private")
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "folder.safetensors").mkdir()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    before = sorted(folder.iterdir())
    for source in (index, folder):
        for command in arguments(source, "--model", "dit"):
            done = CliRunner().invoke(main, command)
            assert done.exit_code == 4, done.output
            assert all(line.isascii() and line.isprintable() for line in done.stderr.splitlines())
    assert sorted(folder.iterdir()) == before
    assert not (tmp_path / "out").exists()
