"""Documentation pages followed word by word: their commands are run, their outputs compared.

In a page, fenced blocks with these words after the fence are followed, in order, in one shell:

``console``
    Lines that begin with ``$ `` are commands (``> `` continues one), and what follows is all that
    the command prints, stdout and stderr together. ``…`` stands for any text within a line, and a
    line that is nothing but ``…`` for any lines.
``LANGUAGE file=PATH``
    The block is written to PATH, as the page asks its reader to do.
``sh run`` and ``python run``
    The block is run as it stands, to its end; what it prints is not compared.

Other blocks are left alone. What differs from run to run or from machine to machine is declared in
``VARIABLE`` and never compared.

    PYTHONPATH=tests python tests/doc_pages.py docs/tutorial.md

writes what commands print today into a page, where it differs from what the page says.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ANY = "…"
VARIABLE = (
    (re.compile(r"\b[0-9]+\.[0-9]+ s\b"), "<seconds>"),
    (re.compile(r"\b[0-9.]+ [kMGT]?B/s"), "<rate>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<sha256>"),
    (re.compile(r"\b[0-9]\.[0-9]+e-(0[5-9]|[1-9][0-9])\b"), "<rounding>"),
)
_FENCE = re.compile(r"^```(.*)$")
_PROGRAMS = {"sh run": "bash -e", "python run": "python -W error"}
_MARK = "\x1e"
_SECONDS = 600


@dataclass(frozen=True)
class Command:
    """A command of a page, what the page says that it prints, and its line in the page."""

    text: str
    expected: str
    line: int


@dataclass(frozen=True)
class File:
    """A file that a page asks its reader to write."""

    path: str
    text: str
    line: int


def read_page(text: str) -> list[Command | File]:
    """Return what there is to do in a page, in order."""
    steps: list[Command | File] = []
    for info, line, lines in blocks(text):
        language, _, option = info.partition(" ")
        if option.startswith("file="):
            steps.append(File(option.removeprefix("file="), "\n".join(lines) + "\n", line))
        elif language == "console":
            steps += _commands(lines, line)
        elif info in _PROGRAMS:
            steps.append(_script(_PROGRAMS[info], lines, line))
    return steps


def blocks(text: str) -> Iterator[tuple[str, int, list[str]]]:
    """Yield what stands after each fence of a page, the number of its first line, and its lines."""
    inside: list[str] | None = None
    info, start = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence and inside is None:
            inside, info, start = [], fence[1].strip(), number + 1
        elif fence and inside is not None:
            yield info, start, inside
            inside = None
        elif inside is not None:
            inside.append(line)
    assert inside is None, f"the block that begins at line {start} has no end"


def _commands(lines: Sequence[str], first: int) -> Iterator[Command]:
    assert lines, f"line {first}: an empty block"
    assert lines[0].startswith("$ "), f"line {first}: a console block begins with a command"
    text, printed, line = "", [""], first
    for number, content in enumerate(lines, start=first):
        if content.startswith("$ "):
            if text:
                yield Command(text, "\n".join(printed), line)
            text, printed, line = content.removeprefix("$ "), [], number
        elif (content == ">" or content.startswith("> ")) and not printed:
            text += f"\n{content[2:]}"
        else:
            printed.append(content)
    yield Command(text, "\n".join(printed), line)


def _script(program: str, lines: Sequence[str], line: int) -> Command:
    """Return a command that runs the lines, and prints what they printed only if they fail."""
    text = "\n".join([f"page_printed=$({program} - 2>&1 <<'END OF BLOCK'", *lines, "END OF BLOCK"])
    return Command(f"{text}\n) || printf 'failed:\\n%s\\n' \"$page_printed\"", "", line)


def clone(folder: Path) -> Path:
    """Make ``folder`` look like a fresh clone, whose files are those of this checkout."""
    for path in ROOT.iterdir():
        if path.name not in ("converted", ".git", ".cache"):
            (folder / path.name).symlink_to(path)
    (folder / "converted").mkdir()
    return folder


def run(steps: Sequence[Command | File], folder: Path) -> list[tuple[Command, str]]:
    """Follow the steps in one shell, in ``folder``; return what each command printed."""
    script = ["exec 2>&1", "page_status=0"]
    for step in steps:
        if isinstance(step, File):
            script += [f"cat > '{step.path}' <<'END OF FILE'", step.text + "END OF FILE"]
        else:
            script += ["(exit $page_status)", step.text, "page_status=$?"]
            script += [f"printf '{_MARK}'"]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    printed = done.stdout.split(_MARK)
    commands = [step for step in steps if isinstance(step, Command)]
    assert len(printed) == len(commands) + 1, done.stdout[-2000:]
    return [
        (command, text.replace(f"{folder}/", "").replace(f"{ROOT}/", ""))
        for command, text in zip(commands, printed, strict=False)
    ]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
    programs = Path(sys.executable).parent
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "NO_COLOR": "1",
        "COLUMNS": "120",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
    }


def differs(expected: str, printed: str) -> str | None:
    """Return how what was printed is not what a page says, as a diff; None: it is."""
    said, got = _plain(expected), _plain(printed)
    if re.fullmatch(_pattern(said), got + "\n"):
        return None
    lines = difflib.unified_diff(said.splitlines(), got.splitlines(), "page", "run", lineterm="")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return a text without what is variable, and without blanks at the ends of its lines."""
    for pattern, name in VARIABLE:
        text = pattern.sub(name, text)
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def _pattern(expected: str) -> str:
    lines = []
    for line in expected.split("\n"):
        if line.strip() == ANY:
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(".*".join(map(re.escape, line.split(ANY))) + r"\n")
    return "".join(lines)


def follow(page: Path, folder: Path) -> int:
    """Follow a page in a fresh clone made in ``folder``; return the number of its commands.

    Raises AssertionError with every output that is not what the page says.
    """
    return follow_text(page.name, page.read_text(encoding="utf-8"), clone(folder))


def follow_text(name: str, text: str, folder: Path) -> int:
    """Follow the text of the page ``name`` in ``folder`` as it is, otherwise like ``follow``."""
    commands = run(read_page(text), folder)
    wrong = [
        f"{name}:{command.line}: $ {command.text}\n{difference}"
        for command, printed in commands
        if (difference := differs(command.expected, printed)) is not None
    ]
    assert not wrong, "\n\n".join(wrong)
    return len(commands)


def renewed(text: str, folder: Path) -> str:
    """Return the text of a page with what its commands print in ``folder``, where that differs."""
    lines = text.splitlines()
    for command, printed in reversed(run(read_page(text), folder)):
        if differs(command.expected, printed) is not None:
            start = command.line - 1 + len(command.text.split("\n"))
            count = len(command.expected.split("\n")) if command.expected else 0
            lines[start : start + count] = [line.rstrip() for line in printed.rstrip().splitlines()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as made:
            new = renewed(Path(name).read_text(encoding="utf-8"), clone(Path(made)))
        Path(name).write_text(new, encoding="utf-8")
