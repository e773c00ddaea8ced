"""Give damaged texts to everything that reads texts of strangers, for as long as is asked for.

Each input is checked within a limit of time, and the process may grow by a limit of memory. What
breaks a target is written to a file, whose path is printed; ``--replay`` checks it again.
"""

import argparse
import hashlib
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fuzz_targets import TARGETS, Target

INPUTS = {"header": 1_000_000, "rules": 20_000, "bundle": 20_000, "conversion": 10_000}
OTHER_INPUTS = 100_000
INPUT_SECONDS = 20
GROWTH_BYTES = 1 << 30
REPORT_SECONDS = 60


class Hang(BaseException):
    """An input took longer than any may; not an Exception, so that nothing catches it."""


def main() -> int:
    """Fuzz the targets that were asked for; return how many inputs broke one."""
    arguments = parsed()
    failures = Path(tempfile.gettempdir()) / "checkpoint-converter-fuzz"
    broken = 0
    for name in arguments.target or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            target = TARGETS[name](Path(folder))
            with bounded():
                if arguments.replay:
                    target.check(arguments.replay.read_bytes())
                else:
                    count = arguments.inputs or INPUTS.get(name, OTHER_INPUTS)
                    broken += fuzz(name, target, count, arguments, failures)
    return broken


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", choices=TARGETS, help="one, or several")
    parser.add_argument("--inputs", type=int, help="how many for each target")
    parser.add_argument("--seconds", type=float, help="how long at most for each target")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other inputs")
    parser.add_argument("--replay", type=Path, help="check the input of this file alone")
    return parser.parse_args()


def fuzz(name: str, target: Target, count: int, arguments: argparse.Namespace, to: Path) -> int:
    """Check ``count`` inputs; return how many broke the target."""
    chance = random.Random(arguments.seed)
    begun = reported = time.monotonic()
    done = taken = broken = 0
    slowest = 0.0
    for done in range(1, count + 1):
        text = target.draw(chance)
        before = time.monotonic()
        try:
            with limited():
                taken += target.check(text)
        except (Exception, Hang):
            broken += 1
            traceback.print_exc()
            print(f"{name}: broken by {kept(text, to / name)}", file=sys.stderr)
        now = time.monotonic()
        slowest = max(slowest, now - before)
        over = arguments.seconds is not None and now - begun > arguments.seconds
        if now - reported > REPORT_SECONDS or done == count or over:
            reported = now
            print(
                f"{name}: {done:,} inputs in {now - begun:,.0f} s, {taken:,} taken, "
                f"{broken} broke it, slowest {slowest:.2f} s",
                flush=True,
            )
        if over:
            break
    return broken


def kept(text: bytes, folder: Path) -> Path:
    """Write an input to a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(text).hexdigest()[:16]
    path.write_bytes(text)
    return path


@contextmanager
def limited() -> Iterator[None]:
    """Raise Hang when what is done takes too long."""

    def expire(number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {INPUT_SECONDS} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(INPUT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def bounded() -> Iterator[None]:
    """Have memory beyond a certain growth fail."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


if __name__ == "__main__":
    sys.exit(min(main(), 100))
