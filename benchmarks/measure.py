"""Rounds of whole processes: what each takes, beside the others.

Contenders take turns (A B C A B C …), so that what the machine does meanwhile falls on all of
them. Before each turn the input is read through, so that it lies in the cache, and what earlier
turns wrote is deleted and synced, so that nobody pays for another.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = ROOT / "benchmarks" / "launch.py"

# What a run took, name → figure: seconds, cpu_seconds, peak_rss_bytes, and what it said itself.
Run: TypeAlias = Mapping[str, float]
Say: TypeAlias = Callable[[str], None]

# What takes longer has hung, and is ended.
LIMIT_SECONDS = 900.0

_READ_BYTES = 4 << 20
# Measured: a virtual machine's free memory went back to the host within 2 s, and was some 1.5 s
# per GB slower to fill from then on. A contender that ran at once would find memory that the one
# before it paid for.
_GIVEN_BACK_SECONDS = 4.0
_MUCH_BYTES = 64 << 20
_BALLOONS = Path("/sys/bus/virtio/drivers/virtio_balloon")
_SHOWN_LINES = 8


class ContenderError(Exception):
    """A contender did not do what it was asked."""


@dataclass(frozen=True)
class Contender:
    """A command to measure, and how it is told.

    ``name`` is short and stands in tables, ``what`` says what it does. ``output`` is what it
    writes, deleted before and after each turn. With ``answers``, its last line of output is an
    object of figures, which join those of the run. Without ``required``, its failure is a reason
    to leave it out.
    """

    name: str
    what: str
    command: Sequence[str | Path]
    output: Path | None = None
    answers: bool = False
    required: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


def python(*arguments: str | Path, program: str = sys.executable) -> list[str | Path]:
    """Return a command of Python."""
    return [program, *arguments]


def run(contender: Contender) -> Run:
    """Run a contender once. Raises ContenderError unless it leaves with 0."""
    answer, output = _launch(contender.command, contender.environment)
    if answer["exit_code"]:
        raise ContenderError(f"exit code {answer['exit_code']}: {output.errors}")
    figures = {name: float(answer[name]) for name in ("seconds", "cpu_seconds", "peak_rss_bytes")}
    if contender.answers:
        said = _last_object(output.text)
        figures |= {figure: float(value) for figure, value in said.items()}
    return figures


def ask(command: Sequence[str | Path]) -> dict[str, Any]:
    """Run a command that answers with an object in its last line; return the object.

    Raises ContenderError when it fails, with what it said.
    """
    answer, output = _launch(command, {})
    if answer["exit_code"]:
        raise ContenderError(output.errors or output.text.strip())
    return _last_object(output.text)


def call(command: Sequence[str | Path]) -> None:
    """Run a command for what it does. Raises ContenderError when it fails."""
    answer, output = _launch(command, {})
    if answer["exit_code"]:
        raise ContenderError(f"{' '.join(map(str, command))}: {output.errors}")


@dataclass(frozen=True)
class _Output:
    text: str
    errors: str


def _launch(
    command: Sequence[str | Path], extra: Mapping[str, str]
) -> tuple[dict[str, Any], _Output]:
    with tempfile.TemporaryDirectory() as folder:
        output, failure = Path(folder, "output"), Path(folder, "errors")
        job = {
            "command": [str(word) for word in command],
            "folder": folder,
            "environment": environment() | dict(extra),
            "output": str(output),
            "errors": str(failure),
            "limit_seconds": LIMIT_SECONDS,
        }
        launched = subprocess.run(
            [sys.executable, "-I", "-S", LAUNCHER],
            input=json.dumps(job),
            capture_output=True,
            text=True,
        )
        if launched.returncode:
            raise ContenderError(launched.stderr.strip().splitlines()[-1])
        text = output.read_text("utf-8", "replace")
        errors = failure.read_text("utf-8", "replace").strip().splitlines()
    return json.loads(launched.stdout), _Output(text, "\n".join(errors[-_SHOWN_LINES:]))


def environment() -> dict[str, str]:
    """Return the environment of contenders: this one's, with this checkout importable."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **offline, "PYTHONPATH": os.pathsep.join(paths)}


def _last_object(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines() or [""]
    try:
        said = json.loads(lines[-1])
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise ContenderError(f"no object in its last line: {lines[-1][:200]!r}")
    return said


@dataclass(frozen=True)
class Rounds:
    """The runs of each contender, and of those that broke off and are left out, why."""

    runs: Mapping[str, Sequence[Run]]
    skipped: Mapping[str, str]


def interleaved(
    contenders: Sequence[Contender], *, rounds: int, inputs: Sequence[Path], say: Say
) -> Rounds:
    """Run each contender in each round.

    One that fails is left out with its runs, unless it is required: then ContenderError is raised.
    """
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    skipped: dict[str, str] = {}
    for number in range(rounds):
        for contender in contenders:
            if contender.name in skipped:
                continue
            settle(contender, inputs)
            try:
                took = run(contender)
            except ContenderError as error:
                if contender.required:
                    raise ContenderError(f"{contender.name}: {error}") from error
                skipped[contender.name] = str(error)
                del runs[contender.name]
            else:
                runs[contender.name].append(took)
                say(f"  round {number + 1} of {rounds}: {contender.name} {took['seconds']:.3f} s")
            remove(contender.output)
    return Rounds(runs, skipped)


def settle(contender: Contender, inputs: Sequence[Path]) -> None:
    """Have the inputs in the cache, the output absent, and nothing left to be written back.

    Where a host takes back the memory that its guest frees, and that may be much, it has it.
    """
    remove(contender.output)
    if hasattr(os, "sync"):
        os.sync()
    if gives_memory_back() and sum(map(bytes_of, inputs)) >= _MUCH_BYTES:
        time.sleep(_GIVEN_BACK_SECONDS)
    for path in inputs:
        read_through(path)


def gives_memory_back() -> bool:
    """Return whether the host of this virtual machine may take back what the machine frees."""
    return any(_BALLOONS.glob("virtio*"))


def read_through(path: Path) -> None:
    """Read a file, or all files of a folder, so that the system's cache holds it."""
    buffer = bytearray(_READ_BYTES)
    for file in files_of(path):
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass


def files_of(path: Path) -> list[Path]:
    """Return a file as a list, or the files of a folder by name."""
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def bytes_of(path: Path) -> int:
    """Return the size of a file or of all files of a folder."""
    return sum(file.stat().st_size for file in files_of(path))


def remove(path: Path | None) -> None:
    """Remove a file or folder, if it is there."""
    if path is None:
        return
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def middle(runs: Sequence[Run], figure: str) -> float:
    """Return the median of a figure."""
    return median(run[figure] for run in runs)


def ratio(left: Sequence[Run], right: Sequence[Run], figure: str = "seconds") -> float:
    """Return the ratio of two medians."""
    return middle(left, figure) / middle(right, figure)


@dataclass(frozen=True)
class Found:
    """A package that is installed: by which interpreter it is found, and its version."""

    program: str
    version: str


def installed(package: str, programs: Sequence[str] = (sys.executable,)) -> Found | None:
    """Return where a package is installed: the first of some interpreters that finds it."""
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    for program in programs:
        with suppress(OSError):
            asked = subprocess.run([program, "-c", code, package], capture_output=True, text=True)
            if asked.returncode == 0:
                return Found(program, asked.stdout.strip())
    return None
