"""A conversion spread over two local workers of Ray, beside one process with one worker.

Most of the checkpoint is there to be folded, so that the cores bound it and not the disk.
"""

from __future__ import annotations

import filecmp
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import (
    Contender,
    ContenderError,
    call,
    environment,
    files_of,
    installed,
    interleaved,
    python,
    ratio,
    remove,
    run,
)
from benchmarks.result import Bar, Result, measured
from benchmarks.workplace import SkippedError, Workplace, convert

WORKERS = 2
# As many for each worker, so that neither waits long for the other at the end.
SHARDS = 8
ON_RAY = ("--executor", "ray")


def ray_executor(place: Workplace, size_bytes: int) -> Result:
    """Measure both on a checkpoint of that size, after proving that they write the same bytes."""
    _require_ray()
    source = place.checkpoint(size_bytes, "folds")
    place.need(2 * size_bytes)
    sharded = ("--max-shard-size", str(size_bytes // SHARDS))
    alone, spread = place.scratch / "alone", place.scratch / "spread"
    contenders = [
        Contender(
            "one process",
            "convert --jobs 1",
            convert(source, alone, jobs=1, extra=sharded),
            alone,
        ),
        Contender(
            "ray",
            f"convert --executor ray, {WORKERS} workers",
            convert(source, spread, jobs=WORKERS, extra=(*sharded, *ON_RAY)),
            spread,
            environment={"RAY_USAGE_STATS_ENABLED": "0"},
        ),
    ]
    for item in contenders:
        place.say(f"  proving {item.name}")
        remove(item.output)
        run(item)
    files = same_files(alone, spread)
    call(python("-m", "converter", "verify", "--quiet", spread))
    rounds = interleaved(contenders, rounds=place.rounds, inputs=[source.path], say=place.say)
    value = ratio(rounds.runs["ray"], rounds.runs["one process"])
    return Result(
        bench="ray",
        title="Conversion on Ray",
        quantities=("seconds",),
        date=datetime.now(UTC).date().isoformat(),
        facts={"source_bytes": source.path.stat().st_size, "files_equal": files},
        contenders=measured([(item.name, item.what) for item in contenders], rounds.runs),
        bars=(Bar("time against one process with one worker", value, "ratio", "at most", 1.0),),
        notes=(
            "Whole processes; that of Ray starts and ends its cluster. Both wrote the same bytes. "
            "The memory of Ray counts what its processes share once for each.",
        ),
        size_bytes=size_bytes,
    )


def _require_ray() -> None:
    asked = subprocess.run(
        python("-m", "converter", "convert", "--help"),
        capture_output=True,
        text=True,
        env=environment(),
    )
    if asked.returncode:
        raise ContenderError(f"convert --help: {asked.stderr[-300:]}")
    if ON_RAY[0] not in asked.stdout:
        raise SkippedError(f"this version of convert has no {ON_RAY[0]}")
    if not installed("ray"):
        raise SkippedError("ray is not installed")


def same_files(left: Path, right: Path) -> int:
    """Return how many files two folders hold alike. Raises ContenderError unless all are."""
    names = [file.name for file in files_of(left)]
    if names != [file.name for file in files_of(right)]:
        raise ContenderError(f"{right.name} does not hold the files of {left.name}")
    _, different, unread = filecmp.cmpfiles(left, right, names, shallow=False)
    if different or unread:
        raise ContenderError(f"not the same bytes: {', '.join([*different, *unread])}")
    return len(names)
