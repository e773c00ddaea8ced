"""A conversion spread over two local workers of Ray, beside one process with one worker.

The checkpoint is nearly all there to be folded, and then cast to eight bits, so that the cores
bound it and not the disk. All contenders have the same two cores.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
from benchmarks.workplace import Checkpoint, SkippedError, Workplace, convert

WORKERS = 2
# So many that neither worker waits long for the other at the end.
SHARDS = 24
ON_RAY = ("--executor", "ray")
DTYPE = "f8_e4m3"

# A cluster that is up before, as those of several machines are; both listen to this one alone.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
CLUSTER = f"""
import sys
import ray

ray.init(
    address="local",
    num_cpus={WORKERS},
    include_dashboard=False,
    log_to_driver=False,
    object_store_memory=128 << 20,
    _temp_dir=sys.argv[1],
)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""
ON_SOME_CORES = f"""
import os
import subprocess
import sys

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{WORKERS}])
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""


def ray_executor(place: Workplace, size_bytes: int) -> Result:
    """Measure both on a checkpoint of that size, after proving that they write the same bytes."""
    _require_ray()
    source = place.checkpoint(size_bytes, "folds")
    place.need(2 * size_bytes)
    with _cluster() as address:
        contenders = _contenders(place, source, address)
        for item in contenders:
            place.say(f"  proving {item.name}")
            remove(item.output)
            run(item)
        alone, *spread = [item.output for item in contenders if item.output is not None]
        files = [same_files(alone, folder) for folder in spread]
        call(python("-m", "converter", "verify", "--quiet", spread[0]))
        rounds = interleaved(contenders, rounds=place.rounds, inputs=[source.path], say=place.say)
    one, own, running = (rounds.runs[item.name] for item in contenders)
    return Result(
        bench="ray",
        title="Conversion on Ray",
        quantities=("seconds",),
        date=datetime.now(UTC).date().isoformat(),
        facts={"source_bytes": source.path.stat().st_size, "files_equal": files[0]},
        contenders=measured([(item.name, item.what) for item in contenders], rounds.runs),
        bars=(
            Bar("time against one process with one worker", ratio(own, one), "ratio", "at most", 1),
            Bar("the same, on a cluster that runs already", ratio(running, one), "ratio"),
        ),
        notes=(
            "Whole processes on the same two cores; one of Ray starts and ends its own cluster. "
            "All wrote the same bytes. One process with one worker has digests made on further "
            "threads, so that it uses more than one core. The memory of Ray counts what its "
            "processes share once for each, and not that of a cluster which runs already.",
        ),
        size_bytes=size_bytes,
    )


def _contenders(place: Workplace, source: Checkpoint, address: str) -> list[Contender]:
    size = source.size_bytes // SHARDS
    layout = ("--max-shard-size", str(size), "--dtype", DTYPE)

    def contender(name: str, what: str, *extra: str) -> Contender:
        out = place.scratch / name.replace(" ", "-")
        command = convert(source, out, jobs=1, extra=(*layout, *extra))
        pinned = python("-c", ON_SOME_CORES, *command)
        return Contender(name, what, pinned, out, environment=ENVIRONMENT)

    return [
        contender("one process", "convert --jobs 1"),
        contender("ray", f"convert --executor ray, {WORKERS} workers", *ON_RAY),
        contender(
            "ray that runs",
            "the same on a cluster that runs already",
            *(*ON_RAY, "--ray-address", address),
        ),
    ]


@contextmanager
def _cluster() -> Iterator[str]:
    """Yield the address of a cluster that runs, on the cores of the contenders."""
    # By a short path, as its sockets need.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if os.name == "posix" else None)
    process = subprocess.Popen(
        [str(word) for word in python("-c", ON_SOME_CORES, *python("-c", CLUSTER, folder))],
        env=environment() | ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        with process:
            yield _first_line(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _first_line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline().strip() if process.stdout is not None else ""
    if not line:
        raise ContenderError("a cluster of Ray cannot be started")
    return line


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
