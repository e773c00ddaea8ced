"""The command line of the benches: what to run, at which sizes, and where the results go."""

from __future__ import annotations

import argparse
import compileall
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

from benchmarks import machine, result
from benchmarks.checkpoint import SizeError
from benchmarks.conversion import conversion, memory
from benchmarks.loading import load_cpu, load_cuda
from benchmarks.measure import ROOT, ContenderError
from benchmarks.page import DOCS, bar_text, label, number, verdict, write_pages
from benchmarks.planning import planning
from benchmarks.ray_executor import ray_executor
from benchmarks.result import Result, ResultError
from benchmarks.start_up import start_up
from benchmarks.verification import verification
from benchmarks.workplace import SkippedError, Workplace, scratch_folder
from converter.canonical import parse_size
from converter.cores import available_cores
from converter.errors import UsageError

RESULTS = ROOT / ".cache" / "benchmarks.json"
DEFAULT_SIZE = "2GB"


@dataclass(frozen=True)
class Bench:
    """A bench: what it measures, and how; ``sized`` when it is run once for every size."""

    what: str
    sized: Callable[[Workplace, int], Result] | None = None
    once: Callable[[Workplace], Result] | None = None


BENCHES = {
    "conversion": Bench(
        "convert against the naive script, cp, cp with openssl digests, mergekit, transformers",
        conversion,
    ),
    "memory": Bench("peak memory of convert; run it at several sizes", memory),
    "verify": Bench("convert verify against hashlib on one thread", verification),
    "plan": Bench("convert plan of 100,000 tensors", once=planning),
    "start-up": Bench("convert --help and inspect against import torch", once=start_up),
    "load-cpu": Bench(
        "load_tensors against load_file, fastsafetensors and runai-model-streamer", load_cpu
    ),
    "load-cuda": Bench("the same on a GPU, beside what its link and the cores give", load_cuda),
    "ray": Bench("convert --executor ray on two workers against one process", ray_executor),
}
PAGE = "page"

EPILOG = "\n".join(
    [
        "benches:",
        *(f"  {name:<11} {bench.what}" for name, bench in BENCHES.items()),
        f"  {PAGE:<11} measure nothing; write docs/benchmarks.md from docs/benchmarks/*.json",
        "",
        "contenders that are not installed are left out, and the results say so. Tools that cannot",
        "share an environment with this one are looked for in those that --python names.",
        "",
        "examples:",
        "  make bench",
        '  make bench ARGS="conversion --size 2GB --size 8GB"',
        '  make bench ARGS="memory --size 2GB --size 8GB --size 16GB --rounds 1"',
        '  make bench ARGS="conversion --contenders ours,naive,cp --scratch /dev/shm"',
        '  make bench ARGS="load-cuda --results docs/benchmarks/gpu.json"',
        "  make bench ARGS=page",
    ]
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the product beside what people use instead, in interleaved rounds.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "benches", nargs="*", metavar="BENCH", help="which to run, of those below; default: all"
    )
    made.add_argument(
        "--size",
        action="append",
        type=_size,
        metavar="SIZE",
        help=f"of the checkpoint, such as 500MB; may be repeated; default: {DEFAULT_SIZE}",
    )
    made.add_argument("--rounds", type=_positive, default=5, help="default: 5")
    made.add_argument("--jobs", type=_positive, help="our workers; default: all cores")
    made.add_argument(
        "--contenders", type=_words, default=(), metavar="A,B", help="only these; default: all"
    )
    made.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="another interpreter to look for contenders in; may be repeated",
    )
    made.add_argument(
        "--scratch",
        type=Path,
        default=Path(gettempdir()),
        metavar="DIR",
        help="where checkpoints are written, 3 times the size; default: the system's",
    )
    made.add_argument(
        "--keep", action="store_true", help="leave checkpoints there, for a next run with --keep"
    )
    made.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="FILE",
        help=f"where results are kept, beside earlier ones; default: {RESULTS.relative_to(ROOT)}",
    )
    return made


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; return 0 unless a bench could not be carried out.

    A figure that is not what it should be is a result like any other.
    """
    made = parser()
    chosen = made.parse_args(arguments)
    if unknown := [name for name in chosen.benches if name not in (*BENCHES, PAGE)]:
        made.error(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}, {PAGE}")
    try:
        if PAGE in chosen.benches:
            return _write_page()
        return _measure(chosen)
    except ResultError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _write_page() -> int:
    for path in write_pages(DOCS):
        print(path.relative_to(ROOT))
    return 0


def _measure(chosen: argparse.Namespace) -> int:
    # As an installer does, so that no start includes it.
    compileall.compile_dir(ROOT / "converter", quiet=1)
    names = chosen.benches or list(BENCHES)
    sizes = chosen.size or [parse_size(DEFAULT_SIZE)]
    with scratch_folder(chosen.scratch, keep=chosen.keep) as folder:
        place = Workplace(
            scratch=folder,
            keeps=chosen.keep,
            rounds=chosen.rounds,
            pythons=(sys.executable, *chosen.python),
            say=_say,
            only=chosen.contenders,
            jobs=chosen.jobs or available_cores(),
        )
        facts = machine.facts(folder)
        failed = False
        for name, run in _work(names, sizes):
            _say(name)
            try:
                found = run(place)
            except SkippedError as skip:
                _say(f"  skipped: {skip}")
            except (ContenderError, SizeError) as error:
                failed = True
                _say(f"  FAILED: {error}")
            else:
                result.keep(chosen.results, facts, [found])
                show(found)
        _say(f"results are in {chosen.results}")
    return 1 if failed else 0


def _work(
    names: Sequence[str], sizes: Sequence[int]
) -> list[tuple[str, Callable[[Workplace], Result]]]:
    """Return what to run, by size: so that only what one size needs is on the disk at a time."""
    found: list[tuple[str, Callable[[Workplace], Result]]] = []
    for size in sizes:
        sized = [name for name in names if BENCHES[name].sized]
        for name in sized:
            last = name == sized[-1]
            found.append((f"{name}, {label(size)}", _at(name, size, last=last)))
    for name in names:
        if once := BENCHES[name].once:
            found.append((name, once))
    return found


def _at(name: str, size: int, *, last: bool) -> Callable[[Workplace], Result]:
    bench = BENCHES[name].sized
    assert bench is not None

    def run(place: Workplace) -> Result:
        try:
            return bench(place, size)
        finally:
            if last and not place.keeps:
                place.forget(size)

    return run


def _say(text: str) -> None:
    print(text, flush=True)


def show(found: Result) -> None:
    """Print the medians of a result, and what of it holds."""
    for item in found.contenders:
        medians = [number(item.median(figure), figure) for figure in found.quantities]
        _say(f"  {item.name:<20} {'  '.join(medians)}")
    for name, because in found.skipped.items():
        _say(f"  {name:<20} left out: {because}")
    for bar in found.bars:
        _say(f"  {verdict(bar):<8} {bar.figure}: {bar_text(bar)}")
