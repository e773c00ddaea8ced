"""Checkpoints that somebody changes at random moments while they are converted."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest
from forked import Forks, Run, forks
from targets import make_target

ROUNDS = int(os.environ.get("CONVERTER_ROUNDS", "6"))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


@pytest.fixture(scope="module")
def conversions() -> Iterator[Forks]:
    with forks() as program:
        yield program


def edit(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)


def cut(path: Path, data: bytes) -> None:
    os.truncate(path, len(data) // 2)


def swap(path: Path, data: bytes) -> None:
    path.with_name("copy").write_bytes(data)
    path.with_name("copy").replace(path)


@pytest.mark.parametrize("change", [edit, cut, swap])
def test_a_source_that_changes_is_converted_as_it_was_or_not_at_all(
    tmp_path: Path, conversions: Forks, change: Callable[[Path, bytes], None]
) -> None:
    target = make_target("model", tmp_path, conversions)
    runs = [conversions.run(*target.arguments["a"], "--overwrite") for _ in range(3)]
    seconds = median(run.seconds for run in runs)
    source = tmp_path / "a" / "blocks.safetensors"
    first, second = (tmp_path / name / "blocks.safetensors" for name in "ab")
    old, new = first.read_bytes(), second.read_bytes()
    moments = random.Random(change.__name__)
    seen: Counter[str] = Counter()
    for _ in range(20 * ROUNDS):
        shutil.rmtree(target.out, ignore_errors=True)
        source.unlink()
        source.write_bytes(old)
        conversions.begin([Run(target.arguments["a"])])
        time.sleep(moments.uniform(0, seconds))
        change(source, new)
        (done,) = conversions.end()
        state = target.state()
        assert target.beside() == set()
        assert "Traceback" not in done.stderr
        if done.status:
            assert (done.status, state) == (4, "absent"), done.stderr
            assert change is not swap
        else:
            assert state == "a" if change is cut else state in ("a", "b")
        seen[f"exit {done.status}, {state}"] += 1
        if sum(seen.values()) >= ROUNDS and (seen["exit 4, absent"] or change is swap):
            break
    print(f"\n{change.__name__}, {seconds:.2f} s: {dict(seen)}")
    assert seen["exit 4, absent"] or change is swap
