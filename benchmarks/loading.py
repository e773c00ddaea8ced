"""Loading: ours beside load_file, fastsafetensors and runai-model-streamer, on CPU and on CUDA.

Each load is in a process of its own, whose clock starts after imports and the device's context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.load_once import LOADERS
from benchmarks.measure import (
    Contender,
    ContenderError,
    Run,
    ask,
    installed,
    interleaved,
    python,
    ratio,
)
from benchmarks.result import Bar, Fact, Measured, Result, measured
from benchmarks.workplace import SkippedError, Workplace

SLACK_BYTES = 128 << 20
LIMIT_SHARE = 0.85
RIVALS = ("load_file", "fastsafetensors", "runai")

# What the hardware gives, as contenders: name → what it is, and the figure of the roofline.
LIMITS = {
    "link": ("copies of pinned memory to the device", "link_bytes_per_second"),
    "sha256": ("sha256 on all cores", "sha256_bytes_per_second"),
    "read": ("reads of a cached file on several threads", "read_bytes_per_second"),
}

NOTES = (
    "Each load in a fresh process, its file in the system's cache. The clock starts after imports "
    "and ends when all bytes are where they were asked; the whole process stands beside.",
)
HAS_CUDA = """\
import json, torch
built = torch.version.cuda
what = f"torch {torch.__version__} " + ("finds no GPU" if built else "was built without CUDA")
print(json.dumps({"cuda": torch.cuda.is_available(), "what": what}))
"""


def load_cpu(place: Workplace, size_bytes: int) -> Result:
    """Measure loads into memory; and with every byte read once, since a mapped load is lazy."""
    directory = place.canonical(size_bytes)
    contenders, skipped, proofs = _loaders(place, directory, "cpu")
    rounds = interleaved(contenders, rounds=place.rounds, inputs=[directory], say=place.say)
    found = _found(contenders, rounds.runs)
    return Result(
        bench="load-cpu",
        title="Load on the CPU",
        quantities=("load_seconds", "touched_seconds"),
        date=datetime.now(UTC).date().isoformat(),
        facts=_facts(proofs, rounds.runs),
        contenders=found,
        bars=tuple(cpu_bars(found)),
        notes=(*NOTES, "load and touch: the load, then one read of every byte of every tensor."),
        skipped={**skipped, **rounds.skipped},
        size_bytes=size_bytes,
    )


def load_cuda(place: Workplace, size_bytes: int, device: str = "cuda") -> Result:
    """Measure loads onto a GPU beside what its link and the cores give.

    Raises SkippedError where there is no GPU. With ``device="cpu"`` all of it runs but for the
    calls of CUDA: a rehearsal, for machines without one.
    """
    if device == "cuda" and not (said := ask(python("-c", HAS_CUDA)))["cuda"]:
        raise SkippedError(f"no CUDA device: {said['what']}")
    directory = place.canonical(size_bytes)
    contenders, skipped, proofs = _loaders(place, directory, device)
    file = directory / "model.safetensors"
    roofline = python("-m", "benchmarks.roofline", device, file)
    limits = Contender("limits", "what the hardware gives", roofline, answers=True)
    described = ask([*roofline, "--describe"])
    rounds = interleaved(
        [limits, *contenders], rounds=place.rounds, inputs=[directory], say=place.say
    )
    found = (*_found(contenders, rounds.runs), *_limits(rounds.runs["limits"]))
    return Result(
        bench="load-cuda",
        title="Load on CUDA",
        quantities=("load_bytes_per_second",),
        date=datetime.now(UTC).date().isoformat(),
        facts=described | _facts(proofs, rounds.runs),
        contenders=found,
        bars=tuple(cuda_bars(found, proofs)),
        notes=(
            *NOTES,
            "again: a second load in the same process, after the tensors of the first are gone.",
            "Device memory is what the device itself reports, sampled while a load that is not "
            "timed runs, less what was in use before.",
        ),
        skipped={**skipped, **rounds.skipped},
        size_bytes=size_bytes,
    )


def _loaders(
    place: Workplace, directory: Path, device: str
) -> tuple[list[Contender], dict[str, str], dict[str, Run]]:
    """Return the loaders that work here, why others do not, and what each proof found."""
    found: list[Contender] = []
    skipped: dict[str, str] = {}
    proofs: dict[str, Run] = {}
    for name, loader in LOADERS.items():
        if device not in loader.devices or not place.wants(name):
            continue
        found_in = installed(loader.package, place.pythons)
        if found_in is None:
            skipped[name] = "not installed"
            continue
        words = ("-m", "benchmarks.load_once", name, directory, device)
        command = python(*words, program=found_in.program)
        what = loader.what.replace("VERSION", found_in.version)
        item = Contender(name, what, command, answers=True, required=loader.required)
        place.say(f"  proving {name}")
        try:
            proofs[name] = ask([*command, "--prove"])
        except ContenderError as error:
            if item.required:
                raise ContenderError(f"{name}: {error}") from error
            skipped[name] = str(error).splitlines()[-1]
        else:
            found.append(item)
    if not found:
        raise SkippedError("none of its contenders is wanted")
    return found, skipped, proofs


def _found(
    contenders: Sequence[Contender], runs: Mapping[str, Sequence[Run]]
) -> tuple[Measured, ...]:
    return measured([(item.name, item.what) for item in contenders if item.name in runs], runs)


def _facts(proofs: Mapping[str, Run], runs: Mapping[str, Sequence[Run]]) -> dict[str, Fact]:
    name = next(name for name in proofs if name in runs)
    return {"tensors": proofs[name]["tensors"], "data_bytes": runs[name][0]["data_bytes"]}


def _limits(runs: Sequence[Run]) -> list[Measured]:
    return [
        Measured(name, what, tuple({"load_bytes_per_second": run[figure]} for run in runs))
        for name, (what, figure) in LIMITS.items()
    ]


def cpu_bars(contenders: Sequence[Measured]) -> list[Bar]:
    """Return what is to hold of loads into memory."""
    runs = {item.name: item.runs for item in contenders}
    if "load_file" not in runs:
        return []
    found = []
    for name in ("ours-mapped", "ours", "ours-full"):
        if name in runs:
            load = ratio(runs[name], runs["load_file"], "load_seconds")
            touched = ratio(runs[name], runs["load_file"], "touched_seconds")
            bar = Bar(f"{name}, load against load_file", load, "ratio")
            mapped = name == "ours-mapped"
            found.append(replace(bar, sense="at most", bound=1.0) if mapped else bar)
            found.append(Bar(f"{name}, load and touch against load_file", touched, "ratio"))
    return found


def cuda_bars(contenders: Sequence[Measured], proofs: Mapping[str, Run]) -> list[Bar]:
    """Return what is to hold of loads onto a GPU; ``proofs`` say what memory each took."""
    by_name = {item.name: item for item in contenders}
    rates = {name: item.median("load_bytes_per_second") for name, item in by_name.items()}
    found = []
    if "ours" in rates:
        found.append(Bar('rate, check="header"', rates["ours"], "bytes/s"))
        share = rates["ours"] / rates["link"]
        figure = 'rate against the link, check="header"'
        found.append(Bar(figure, share, "ratio", "at least", LIMIT_SHARE))
        for rival in RIVALS:
            if rival in by_name:
                value = ratio(by_name["ours"].runs, by_name[rival].runs, "load_seconds")
                found.append(Bar(f"time against {rival}", value, "ratio", "at most", 1.0))
    if "ours-full" in rates:
        found.append(Bar('rate, check="full"', rates["ours-full"], "bytes/s"))
        share = rates["ours-full"] / min(rates["link"], rates["sha256"])
        figure = 'rate against sha256 on all cores or the link, check="full"'
        found.append(Bar(figure, share, "ratio", "at least", LIMIT_SHARE))
    for name in ("ours", "ours-full"):
        if name in by_name:
            beyond = proofs[name]["peak_device_bytes"] - by_name[name].runs[0]["data_bytes"]
            figure = f"device memory beyond the weights, {name}"
            found.append(Bar(figure, beyond, "bytes", "at most", SLACK_BYTES))
    return found
