"""Start-up: commands that need no tensors, beside what importing torch alone would take."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

from benchmarks.checkpoint import dims_for, tensors_of
from benchmarks.measure import Contender, ContenderError, environment, interleaved, python, ratio
from benchmarks.planning import write_holes
from benchmarks.result import Bar, Result, measured
from benchmarks.workplace import Workplace

HEADER_BYTES = 2_000_000_000
HEAVY = ("torch", "numpy")


def start_up(place: Workplace) -> Result:
    """Measure --help and inspect of a full-size header, beside ``import torch``."""
    header = dict(tensors_of(dims_for(HEADER_BYTES)))
    path = place.scratch / "header.safetensors"
    write_holes(path, header)
    ours = {
        "help": ("convert --help", ["--help"]),
        "inspect": (f"convert inspect, {len(header):,} tensors", ["inspect", str(path)]),
    }
    contenders = [
        Contender(name, what, python("-m", "converter", *arguments))
        for name, (what, arguments) in ours.items()
    ]
    contenders += [
        Contender("import torch", 'python -c "import torch"', python("-c", "import torch")),
        Contender("python", 'python -c ""', python("-c", "")),
    ]
    rounds = interleaved(contenders, rounds=place.rounds, inputs=[], say=place.say)
    bars = []
    for name, (_, arguments) in ours.items():
        value = ratio(rounds.runs[name], rounds.runs["import torch"])
        heavy = imported(arguments)
        bars.append(Bar(f"{name}, against import torch", value, "ratio", "at most", 0.2))
        bars.append(Bar(f"{name}, modules of torch and numpy", len(heavy), "", "at most", 0))
    return Result(
        bench="start-up",
        title="Start-up",
        quantities=("seconds",),
        date=datetime.now(UTC).date().isoformat(),
        facts={"header_tensors": len(header)},
        contenders=measured([(item.name, item.what) for item in contenders], rounds.runs),
        bars=tuple(bars),
        notes=("Whole processes, as python -m converter.",),
    )


def imported(arguments: list[str], roots: tuple[str, ...] = HEAVY) -> list[str]:
    """Return the modules below ``roots`` that a command imports, as Python itself reports."""
    command = [sys.executable, "-X", "importtime", "-m", "converter", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    names = [
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    ]
    if done.returncode or "click" not in names:
        raise ContenderError(f"what it imports cannot be told: {done.stderr[-300:]}")
    return [name for name in names if name.partition(".")[0] in roots]
