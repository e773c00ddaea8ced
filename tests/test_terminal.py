"""On a terminal there are colour, tables and bars; anywhere else, or if asked, plain text."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from bundles import convert_small, small_tensors, write_small
from toy import toy_tensors, write_rules, write_source

from converter import terminal
from converter.finding import Finding
from converter.sheet import Sheet, Slots, Table

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HEADER = Path(__file__).parent / "headers" / "gpt2.json"


def seen(
    *arguments: str | Path,
    width: int = 120,
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Return what a terminal is written by a command, all of it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    environment |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **(variables or {})}
    command = [sys.executable, "-m", "converter", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=cwd
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    process.wait()
    return shown.decode().replace("\r\n", "\n")


def piped(*arguments: str | Path, cwd: Path | None = None) -> str:
    command = [sys.executable, "-m", "converter", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd).stdout


def words(text: str) -> list[str]:
    return [word for word in CODES.sub("", text).split() if set(word) - set("─")]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_source(tmp_path, toy_tensors())
    write_rules(tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", [("inspect", HEADER), ("models",)], ids=lambda a: a[0])
def test_a_terminal_shows_the_same_words_with_heads_and_colour(
    arguments: Sequence[str | Path],
) -> None:
    shown, plain = seen(*arguments), piped(*arguments)
    assert CODES.search(shown)
    assert not CODES.search(plain)
    left = list(words(shown))
    for word in words(plain):
        left.remove(word)
    heads = "name shape dtype count size", "model bundle what it is"
    assert set(left) <= set(words(" ".join(heads)))


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_terminal_that_wants_it_plain_gets_what_a_pipe_gets(
    variables: Mapping[str, str], here: Path
) -> None:
    assert seen("inspect", HEADER, variables=variables) == piped("inspect", HEADER)
    shown = seen("toy.safetensors", "out", "--rules", "toy.yaml", cwd=here, variables=variables)
    assert "\x1b" not in shown
    assert shown.startswith("toy: A toy with one of everything\n  read ")


def test_quiet_is_plain_on_a_terminal_too(here: Path) -> None:
    shown = seen("toy.safetensors", "out", "--rules", "toy.yaml", "--quiet", cwd=here)
    assert "\x1b" not in shown
    assert "\x1b" not in seen("verify", "nowhere", "--quiet", cwd=here)


def test_json_is_plain_on_a_terminal() -> None:
    assert seen("inspect", HEADER, "--json") == piped("inspect", HEADER, "--json")


def test_a_narrow_terminal_loses_no_character() -> None:
    wide, narrow = (CODES.sub("", seen("inspect", HEADER, width=width)) for width in (200, 50))
    assert len(narrow.splitlines()) > len(wide.splitlines())
    counts = [Counter(re.sub(r"[\s─]+", "", text)) for text in (wide, narrow)]
    assert counts[0] == counts[1]


def test_a_narrow_terminal_breaks_words_first_then_names_behind_their_dots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = (
        ("model.layers.{0..2}.input_layernorm.weight", "1"),
        ("a.weight → bb.weight", "2"),
        ("a_name_without_any_dots_at_all", "3"),
        ("", "4"),
    )
    table = Table(rows, ("name", "size"), right=frozenset({1}))
    monkeypatch.setenv("COLUMNS", "25")
    shown = CODES.sub("", terminal.drawn(Sheet((table,))))
    cells = [line[:19].rstrip() for line in shown.splitlines()[2:]]
    assert cells == [
        "model.layers.",
        "{0..2}.",
        "input_layernorm.",
        "weight",
        "a.weight →",
        "bb.weight",
        "a_name_without_any_",
        "dots_at_all",
        "",
    ]


def test_an_error_has_its_slots_in_colour_and_in_their_order() -> None:
    finding = Finding("x", "it is wrong", "a.yaml:3", "w", "this", "that", "mend it")
    styled = terminal.styled_finding(finding)
    assert CODES.sub("", styled) == f"error: {finding.render()}"
    first, *slots = styled.splitlines()
    assert first.startswith("\x1b[31m\x1b[1merror:")
    assert len({CODES.findall(slot)[2] for slot in slots}) == 4
    warning = terminal.styled_finding(Finding("x", "y", severity="warning"))
    assert "\x1b[33m" in warning


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (
            ("verfy", "out"),
            "error: 'verfy' is neither a command nor a file. Did you mean 'verify'?",
        ),
        (("inspect",), "error: Missing argument 'SOURCE'."),
    ],
    ids=str,
)
def test_wrong_usage_looks_like_any_other_error(arguments: Sequence[str], first: str) -> None:
    shown = seen(*arguments)
    assert "\x1b[31m" in shown
    assert CODES.sub("", shown).splitlines()[0] == first
    assert "hint:     see " in CODES.sub("", shown)


def test_a_question_is_answered_with_help_on_a_terminal_too() -> None:
    assert seen().startswith("Usage: ")
    assert seen("plan", "--help").startswith("Usage: ")


def test_errors_are_coloured_on_a_terminal_alone(here: Path) -> None:
    shown = seen("plan", "toy.safetensors", "--rules", "absent.yaml", cwd=here)
    assert "\x1b[31m" in shown
    assert CODES.sub("", shown).startswith("error: absent.yaml: the rule file cannot be read")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("toy.safetensors", "out", "--rules", "toy.yaml"), "converting"),
        (("inspect", "toy.safetensors", "--stats"), "reading"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_long_work_shows_a_bar_and_clears_it(
    here: Path, arguments: Sequence[str], what: str
) -> None:
    shown = seen(*arguments, cwd=here)
    assert what in shown
    bars = shown.rindex("\x1b[2K")
    assert what not in CODES.sub("", shown[bars:])


def test_a_header_alone_is_shown_without_a_bar() -> None:
    assert "reading" not in seen("inspect", HEADER)


def test_a_bundle_is_verified_under_one_bar(tmp_path: Path) -> None:
    write_small(tmp_path, small_tensors())
    convert_small(tmp_path)
    shown = seen("verify", tmp_path / "out")
    assert "verifying" in shown
    assert shown.count("\x1b[?25l") == 1  # the cursor is hidden while a bar is there


def test_what_is_drawn_holds_no_code_of_a_stranger() -> None:
    evil = "a\x1b[2Jb"
    sheet = Sheet(
        [evil, Slots([(evil, evil)]), Table([(evil, "[bold]x[/bold]")], ("name", "dtype"))]
    )
    shown = terminal.drawn(sheet)
    assert "\x1b[2J" not in shown
    assert "[bold]x[/bold]" in shown


@pytest.mark.parametrize("closed", [1, 2])
def test_a_command_does_its_work_where_a_stream_was_closed_before(closed: int, here: Path) -> None:
    command = "toy.safetensors", "out", "--rules", "toy.yaml"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}>&-', "-", sys.executable, "-m", "converter", *command],
        cwd=here,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (done.stdout == "") == (closed == 1)
    assert (here / "out" / "manifest.json").is_file()


def test_a_stream_that_is_closed_is_not_styled(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert not terminal.is_styled(file)
    assert not terminal.is_styled(file)
