"""What the process says when it is asked wrongly, or asked to end."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from click.testing import CliRunner
from toy import toy_tensors, write_rules, write_source

from converter import resources
from converter.cli import main
from converter.cli_answer import reports
from converter.report import Report

# Wrong usage, as data


def refused(*arguments: str) -> dict[str, Any]:
    """Return what is answered to arguments that cannot be understood."""
    result = CliRunner().invoke(main, arguments, prog_name="convert")
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    document = json.loads(result.stdout)
    jsonschema.validate(document, resources.schema("report"))
    assert (document["ok"], document["exit_code"], document["result"]) == (False, 2, {})
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize(
    ("arguments", "command", "words"),
    [
        (("--json",), "convert", "Missing argument 'SOURCE'"),
        (("in.safetensors", "--json"), "convert", "Missing argument 'OUT'"),
        (("in.safetensors", "out", "--frobnicate", "--json"), "convert", "No such option"),
        (("--json", "a", "out", "more"), "convert", "unexpected extra argument"),
        (("a", "out", "--jobs", "0", "--json"), "convert", "not in the range"),
        (("verfy", "out", "--json"), "convert", "Did you mean 'verify'?"),
        (("verify", "--json"), "verify", "Missing argument 'DIRECTORIES"),
        (("verify", "--json", "--level", "half", "out"), "verify", "is not one of"),
        (("plan", "a", "b", "--json"), "plan", "unexpected extra argument"),
        (("inspect", "", "--json"), "inspect", "Invalid value for 'SOURCE'"),
        (("models", "--json", "--model"), "models", "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_usage_is_answered_by_the_schema(
    arguments: Sequence[str], command: str, words: str
) -> None:
    document = refused(*arguments)
    assert document["command"] == command
    (finding,) = document["findings"]
    assert (finding["code"], finding["severity"]) == ("usage", "error")
    assert words in finding["what"]
    assert finding["hint"].startswith("see convert")
    assert finding["hint"].endswith(" --help")


def test_what_stands_behind_two_dashes_is_no_option() -> None:
    result = CliRunner().invoke(main, ["plan", "a", "b", "--", "--json"])
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")


def test_help_is_text_all_the_same() -> None:
    result = CliRunner().invoke(main, ["verify", "--json", "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_the_process_answers_as_the_library_does() -> None:
    command = [sys.executable, "-m", "converter", "verify", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout) == refused("verify", "--json")


# Signals


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the toy's checkpoint and rules."""
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path, toy_tensors())
    write_rules(tmp_path)
    return tmp_path


# The command line, and something that happens when the first file is to be brought to disk.
PROGRAM = """
import os, shutil, signal, sys, time
from converter import signals
from converter.cli import main
fsync, rmtree = os.fsync, shutil.rmtree
def happen(descriptor):
    os.fsync = fsync
    HAPPENS
    fsync(descriptor)
os.fsync = happen
main(["toy.safetensors", "out", "--rules", "toy.yaml", "--jobs", "1"])
"""


def converted(happens: str, **options: Any) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.replace("HAPPENS", happens)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def assert_nothing_is_left(here: Path) -> None:
    assert {path.name for path in here.iterdir()} == {"toy.safetensors", "toy.yaml"}


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "ended by SIGTERM"),
        (signal.SIGHUP, "ended by SIGHUP"),
    ],
)
def test_a_conversion_that_is_asked_to_end_leaves_nothing_and_says_so(
    here: Path, number: signal.Signals, how: str
) -> None:
    done = converted(f"os.kill(os.getpid(), {int(number)})")
    assert done.returncode == 128 + number
    assert done.stderr == f"{how}; no half-written directory is left\n"
    assert done.stdout == ""
    assert_nothing_is_left(here)


def test_one_that_is_asked_again_while_it_cleans_up_leaves_nothing_either(here: Path) -> None:
    again = "; ".join(f"os.kill(os.getpid(), {number})" for number in (1, 2, 15, 2))
    done = converted(
        "os.kill(os.getpid(), 15); "
        f"shutil.rmtree = lambda path, **options: [{again.replace(';', ',')}, rmtree(path)]"
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "ended by SIGTERM; no half-written directory is left\n"
    assert_nothing_is_left(here)


def test_one_that_was_told_to_ignore_hangups_goes_on(here: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    done = converted("os.kill(os.getpid(), 1)", preexec_fn=ignore)
    assert (done.returncode, done.stderr) == (0, "")
    assert (here / "out" / "manifest.json").exists()


def test_one_whose_terminal_goes_away_leaves_nothing(here: Path) -> None:
    waiting = "open('waiting', 'w').close()\n    while not signals._came: time.sleep(0.01)"
    program = PROGRAM.replace("HAPPENS", waiting)
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-c", program])
    while not (here / "waiting").exists():
        os.read(terminal, 1 << 16)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    (here / "waiting").unlink()
    assert_nothing_is_left(here)


def test_a_reader_of_errors_that_stops_early_changes_no_exit_code(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"out{number}").mkdir()
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "converter", "verify", *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=writing)
    os.close(writing)
    assert done.returncode == 4


def test_a_report_is_let_go_before_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    made: list[weakref.ref[partial[dict[str, object]]]] = []

    def command() -> Report:
        details = partial(dict[str, object])
        made.append(weakref.ref(details))
        return Report("plan", "planned", details, exit_code=3)

    with pytest.raises(SystemExit) as caught:
        click.command()(reports(command))([])
    assert (caught.value.code, capsys.readouterr().out) == (3, "planned\n")
    assert [held() for held in made] == [None]
