"""Conversions that are killed, or asked to end, at random moments of their work.

``CONVERTER_KILLS=200`` makes it as many of each kind; ``-s`` shows what came of them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from statistics import median

import pytest
from forked import Forks, forks
from targets import Target, make_target

KILLS = int(os.environ.get("CONVERTER_KILLS", "6"))
KINDS = ("model", "bundle")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


@pytest.fixture(scope="module")
def conversions() -> Iterator[Forks]:
    with forks() as program:
        yield program


@pytest.fixture(scope="module")
def targets(
    tmp_path_factory: pytest.TempPathFactory, conversions: Forks
) -> dict[str, tuple[Target, float]]:
    """Return a target of each kind, and how long converting there takes, in seconds."""
    made = {}
    for kind in KINDS:
        target = make_target(kind, tmp_path_factory.mktemp(kind), conversions)
        runs = [conversions.run(*target.arguments["b"], "--overwrite") for _ in range(5)]
        made[kind] = target, median(run.seconds for run in runs)
    return made


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_at_any_moment_leaves_old_or_new_and_the_next_run_puts_all_right(
    conversions: Forks, targets: dict[str, tuple[Target, float]], kind: str, overwrite: bool
) -> None:
    target, seconds = targets[kind]
    moments = random.Random(f"{kind} {overwrite}")
    seen: Counter[str] = Counter()
    for _ in range(20 * KILLS):
        old, new = begin(target, overwrite=overwrite)
        words = (*target.arguments[new], *["--overwrite"] * overwrite)
        moment = moments.uniform(0, 1.1 * seconds)
        done = conversions.run(*words, signal=signal.SIGKILL, signal_at=moment)
        assert done.status in (0, -signal.SIGKILL), done.stderr
        state = target.state()
        assert state in (old, new)
        if done.status:
            working = ".out.partial" in target.beside()
            seen[f"killed {'at work' if working else 'else'}, {word(state, old)} there"] += 1
        else:
            seen["too late"] += 1
            assert (state, target.beside()) == (new, set())
        # What was killed once it had published needs to be told that it may.
        again = words if state == old or overwrite else (*words, "--overwrite")
        following = conversions.run(*again)
        assert (following.status, following.stderr) == (0, "")
        seconds = following.seconds  # as busy as the machine is by now
        assert (target.state(), target.beside()) == (new, set())
        landed = sum(count for what, count in seen.items() if what.startswith("killed"))
        if landed >= KILLS and seen["killed at work, old there"] >= KILLS / 4:
            break
    else:
        pytest.fail(f"nothing was killed at work: {seen}")
    print(f"\n{kind}{' --overwrite' * overwrite}, {seconds:.2f} s: {dict(seen)}")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_asks_to_end_leaves_old_or_new_and_nothing_beside(
    conversions: Forks, targets: dict[str, tuple[Target, float]], number: int, overwrite: bool
) -> None:
    target, seconds = targets["model"]
    moments = random.Random(f"{number} {overwrite}")
    seen: Counter[str] = Counter()
    for _ in range(20 * KILLS):
        old, new = begin(target, overwrite=overwrite)
        words = (*target.arguments[new], *["--overwrite"] * overwrite)
        moment = moments.uniform(0, 1.1 * seconds)
        done = conversions.run(*words, signal=number, signal_at=moment)
        state = target.state()
        assert state in (old, new)
        assert target.beside() == set()
        if done.status > 0:
            assert done.status == 128 + number
            assert done.stderr.endswith("; no half-written directory is left\n"), done.stderr
            assert done.stdout == ""
        else:  # it came before the command began or after it had ended
            assert done.status in (0, -number), done.stderr
        seen[f"{done.status}, {word(state, old)} there"] += 1
        if sum(seen.values()) >= KILLS and seen[f"{128 + number}, old there"] >= KILLS / 4:
            break
    else:
        pytest.fail(f"nothing was ended at work: {seen}")
    print(f"\n{signal.Signals(number).name}{' --overwrite' * overwrite}: {dict(seen)}")


def begin(target: Target, *, overwrite: bool) -> tuple[str, str]:
    """Let the target be as it is before a run; return that state, and that of after it."""
    if not overwrite:
        shutil.rmtree(target.out, ignore_errors=True)
        return "absent", "b"
    old = target.state()
    return old, "b" if old == "a" else "a"


def word(state: str, old: str) -> str:
    return "old" if state == old else "new"
