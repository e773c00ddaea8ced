"""Several runs that convert into one target at once."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Forks, Run, forks
from targets import Target, make_target

ROUNDS = int(os.environ.get("CONVERTER_ROUNDS", "6"))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


@pytest.fixture(scope="module")
def conversions() -> Iterator[Forks]:
    with forks() as program:
        yield program


def race(target: Target, conversions: Forks, begins: list[float], *more: str) -> Counter[str]:
    """Let runs for ``a`` and ``b`` in turn begin at these times; return how they ended."""
    names = ["ab"[number % 2] for number in range(len(begins))]
    runs = [
        Run((*target.arguments[name], *more), begin)
        for name, begin in zip(names, begins, strict=True)
    ]
    ends: Counter[str] = Counter()
    won = set()
    for name, done in zip(names, conversions.together(runs), strict=True):
        assert done.status in (0, 6), done.stderr
        if done.status == 0:
            ends["won"] += 1
            won.add(name)
        elif "another run is writing to this target" in done.stderr:
            ends["locked"] += 1
        else:
            assert "the target exists and is not empty" in done.stderr, done.stderr
            assert not more
            ends["exists"] += 1
    assert target.state() in won
    assert target.beside() == set()
    return ends


@pytest.mark.parametrize("kind", ["model", "bundle"])
def test_of_runs_that_begin_together_one_wins_and_the_others_are_told(
    tmp_path: Path, conversions: Forks, kind: str
) -> None:
    target = make_target(kind, tmp_path, conversions)
    seen: Counter[str] = Counter()
    for _ in range(ROUNDS):
        shutil.rmtree(target.out)
        ends = race(target, conversions, [0.0, 0.0])
        assert ends["won"] == 1
        seen += ends
    print(f"\n{kind}: {dict(seen)}")
    assert seen["locked"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_runs_that_begin_one_by_one_each_wins_or_is_told(
    tmp_path: Path, conversions: Forks, overwrite: bool
) -> None:
    target = make_target("model", tmp_path, conversions)
    moments = random.Random(overwrite)
    seen: Counter[str] = Counter()
    for _ in range(ROUNDS):
        if not overwrite:
            shutil.rmtree(target.out)
        begins = [moments.uniform(0, 0.3) for _ in range(4)]
        ends = race(target, conversions, begins, *["--overwrite"] * overwrite)
        assert ends["won"] == 1 or overwrite
        seen += ends
    print(f"\n{'--overwrite' * overwrite}: {dict(seen)}")


def test_what_a_killed_run_left_is_taken_over_by_one(tmp_path: Path, conversions: Forks) -> None:
    target = make_target("model", tmp_path, conversions)
    shutil.rmtree(target.out)
    target.out.with_name(".out.lock").touch()
    half = target.out.with_name(".out.partial")
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert race(target, conversions, [0.0, 0.0, 0.0])["won"] == 1
