"""Verification: ours in full beside one thread of hashlib over the same files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.checkpoint import dims_for
from benchmarks.measure import Contender, bytes_of, interleaved, middle, python, ratio
from benchmarks.result import Bar, Measured, Result, measured
from benchmarks.workplace import Workplace

# Of a few tensors: what is left of the time is start-up.
TINY_BYTES = 3_000_000
OURS_TINY, HASHLIB_TINY = "ours on 3 MB", "hashlib on 3 MB"

HASHLIB = """\
import hashlib, pathlib, sys
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    with path.open("rb") as file:
        print(hashlib.file_digest(file, "sha256").hexdigest(), path.name)
"""


def verification(place: Workplace, size_bytes: int) -> Result:
    """Measure the verification of a canonical directory of that size."""
    whole, tiny = place.canonical(size_bytes), place.canonical(TINY_BYTES)
    contenders = place.wanted(
        [
            Contender("ours", "verify, in full", _verify(whole, place.jobs)),
            Contender("hashlib", "hashlib.file_digest, one thread", python("-c", HASHLIB, whole)),
            Contender(
                "sha256sum",
                "sha256sum --check SHA256SUMS",
                ["sh", "-c", 'cd "$0" && sha256sum --quiet --check SHA256SUMS', whole],
            ),
            Contender(OURS_TINY, "verify of a directory of 3 MB", _verify(tiny, place.jobs)),
            Contender(HASHLIB_TINY, "hashlib.file_digest of 3 MB", python("-c", HASHLIB, tiny)),
        ]
    )
    rounds = interleaved(contenders, rounds=place.rounds, inputs=[whole], say=place.say)
    found = measured([(item.name, item.what) for item in contenders], rounds.runs)
    return Result(
        bench="verify",
        title="Verification",
        quantities=("seconds",),
        date=datetime.now(UTC).date().isoformat(),
        facts={
            "bytes": bytes_of(whole),
            "layers": dims_for(size_bytes).layers,
            "our_workers": place.jobs,
        },
        contenders=found,
        bars=tuple(bars(found)),
        notes=(
            "Whole processes, files in the system's cache. Net of start-up is less what the same "
            "command takes for a directory of 3 MB.",
        ),
        size_bytes=size_bytes,
    )


def _verify(path: Path, jobs: int) -> list[str | Path]:
    return python("-m", "converter", "verify", "--quiet", "--jobs", str(jobs), path)


def bars(contenders: Sequence[Measured]) -> list[Bar]:
    """Return what is to hold of the contenders that were measured."""
    runs = {item.name: item.runs for item in contenders}
    found = []
    if {"ours", "hashlib"} <= runs.keys():
        whole = ratio(runs["ours"], runs["hashlib"])
        found.append(Bar("time against hashlib, one thread", whole, "ratio", "at most", 0.7))
        if {OURS_TINY, HASHLIB_TINY} <= runs.keys():
            ours = middle(runs["ours"], "seconds") - middle(runs[OURS_TINY], "seconds")
            alone = middle(runs["hashlib"], "seconds") - middle(runs[HASHLIB_TINY], "seconds")
            if alone > 0:
                found.append(Bar("the same, net of start-up", ours / alone, "ratio"))
    if {"ours", "sha256sum"} <= runs.keys():
        found.append(Bar("time against sha256sum", ratio(runs["ours"], runs["sha256sum"]), "ratio"))
    return found
