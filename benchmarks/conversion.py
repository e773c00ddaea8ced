"""Conversion: ours beside the naive script, cp, cp with digests, mergekit and transformers.

All read one checkpoint and write one, each as a whole process. Ours hashes source, tensors and
files, computes statistics, looks at every value, and has the disk confirm (fsync) what it wrote.
The others do not; each has a second form that is followed by ``sync`` of what it wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.checkpoint import tensors_of
from benchmarks.measure import (
    Contender,
    ContenderError,
    ask,
    bytes_of,
    call,
    installed,
    interleaved,
    python,
    ratio,
    remove,
    run,
    settle,
)
from benchmarks.result import Bar, Fact, Measured, Result, measured
from benchmarks.workplace import Checkpoint, Workplace, convert

MEMORY_BOUND_BYTES = 600_000_000
# Most of the time of these that ours may take.
BOUNDS = {"naive": 0.8, "cp+digests": 0.9}
OURS = "ours"

NOTES = (
    "Whole processes, start-up included. Each turn begins with the source in the system's cache "
    "and nothing left to be written back; what a turn wrote is deleted before the next.",
    "Ours writes past the cache, and waits until the disk has it (fsync); the others leave what "
    "they wrote in the cache, but for the forms with sync. The bars are against the forms without.",
)
OTHERS = ("mergekit", "transformers")
OF_OTHERS = (
    "mergekit and transformers take the file for the Phi-3 that most of it is, convert nothing, "
    "and leave out what such a model has not."
)


def conversion(place: Workplace, size_bytes: int) -> Result:
    """Measure all contenders on a checkpoint of that size."""
    source = place.checkpoint(size_bytes)
    place.need(2 * size_bytes)  # ours and the naive script's, while they are compared
    others, skipped = _others(place, source)
    wanted = place.wanted([*_plain(place, source), *_synced(place, source), *others])
    proven, broken, facts = prove(place, source, wanted)
    inputs = [source.path]
    rounds = interleaved(proven, rounds=place.rounds, inputs=inputs, say=place.say)
    kept = [(item.name, item.what) for item in proven if item.name in rounds.runs]
    contenders = measured(kept, rounds.runs)
    return Result(
        bench="conversion",
        title="Conversion",
        quantities=("seconds", "peak_rss_bytes"),
        date=datetime.now(UTC).date().isoformat(),
        facts=_facts(place, source) | facts,
        contenders=contenders,
        bars=tuple(bars(contenders)),
        notes=(*NOTES, OF_OTHERS) if rounds.runs.keys() & set(OTHERS) else NOTES,
        skipped={**skipped, **broken, **rounds.skipped},
        size_bytes=size_bytes,
    )


def memory(place: Workplace, size_bytes: int) -> Result:
    """Measure the memory of ours on a checkpoint of that size."""
    source = place.checkpoint(size_bytes)
    place.need(size_bytes)
    ours = _plain(place, source)[0]
    proven, _, facts = prove(place, source, [ours])
    rounds = interleaved(proven, rounds=place.rounds, inputs=[], say=place.say)
    contenders = measured([(ours.name, ours.what)], rounds.runs)
    return Result(
        bench="memory",
        title="Memory of a conversion",
        quantities=("peak_rss_bytes",),
        date=datetime.now(UTC).date().isoformat(),
        facts=_facts(place, source) | facts,
        contenders=contenders,
        bars=(_memory_bar(contenders[0]),),
        notes=("The peak of all that is resident, mapped pages of files included.",),
        size_bytes=size_bytes,
    )


def _facts(place: Workplace, source: Checkpoint) -> dict[str, Fact]:
    tensors = tensors_of(source.dims)
    sizes = {name: tensor.size_bytes for name, tensor in tensors.items()}
    folded = sum(size for name, size in sizes.items() if name.endswith(".weight_v"))
    split = sum(size for name, size in sizes.items() if "qkv_proj" in name or "gate_up" in name)
    return {
        "source_bytes": source.path.stat().st_size,
        "source_tensors": len(tensors),
        "largest_tensor_bytes": max(sizes.values()),
        "folded_percent": round(100 * folded / source.size_bytes, 1),
        "split_percent": round(100 * split / source.size_bytes, 1),
        "our_workers": place.jobs,
    }


def _plain(place: Workplace, source: Checkpoint) -> list[Contender]:
    """Return ours, then those that leave what they write in the system's cache."""
    ours, naive, copy = _outputs(place)
    digests = 'cp "$0" "$1" && openssl dgst -sha256 "$0" && openssl dgst -sha256 "$1"'
    return [
        Contender(
            OURS,
            "convert, all checks and digests",
            convert(source, ours, jobs=place.jobs),
            ours,
        ),
        Contender(
            "naive",
            "load_file, loop, save_file; no digest, no check",
            _naive(source, naive),
            naive,
        ),
        Contender("cp", "cp of the file", ["cp", source.path, copy], copy),
        Contender(
            "cp+digests",
            "cp, then openssl dgst -sha256 of source and result",
            ["sh", "-c", digests, source.path, copy],
            copy,
        ),
    ]


def _synced(place: Workplace, source: Checkpoint) -> list[Contender]:
    """Return the same, each followed by a sync of what it wrote."""
    return [
        Contender(
            f"{item.name}+sync",
            f"{item.what}; then sync of the result",
            ["sh", "-c", '"$@" && sync "$0"', str(item.output), *item.command],
            item.output,
        )
        for item in _plain(place, source)[1:]
    ]


def _outputs(place: Workplace) -> tuple[Path, Path, Path]:
    scratch = place.scratch
    return scratch / "ours", scratch / "naive.safetensors", scratch / "copy.safetensors"


def _naive(source: Checkpoint, out: Path) -> list[str | Path]:
    program = Path(__file__).with_name("naive.py")
    dims = source.dims
    return python(program, source.path, out, str(dims.hidden), str(dims.kv))


def _others(place: Workplace, source: Checkpoint) -> tuple[list[Contender], dict[str, str]]:
    """Return the tools that are installed in some interpreter, and why others are not there."""
    recipe = place.scratch / "passthrough.yaml"
    layers = [0, source.dims.layers]
    piece = {"sources": [{"model": str(source.folder), "layer_range": layers}]}
    merge = {"merge_method": "passthrough", "dtype": "float32", "slices": [piece]}
    recipe.write_text(json.dumps(merge), "utf-8")  # JSON is YAML
    out = place.scratch / "resaved"
    resave = Path(__file__).with_name("resave.py")
    plain = ["--no-copy-tokenizer", "--no-write-model-card", "--quiet"]
    commands: dict[str, tuple[str, list[str | Path]]] = {
        "mergekit": (
            "passthrough",
            ["-m", "mergekit.scripts.run_yaml", recipe, out, *plain],
        ),
        "transformers": ("from_pretrained, save_pretrained", [resave, source.folder, out]),
    }
    found, skipped = [], {}
    for name, (what, arguments) in commands.items():
        if not place.wants(name):
            continue
        found_in = installed(name, place.pythons)
        if found_in is None:
            skipped[name] = "not installed"
        else:
            command = python(*arguments, program=found_in.program)
            what = f"{what} of {name} {found_in.version}"
            found.append(Contender(name, what, command, out, required=False))
    return found, skipped


def prove(
    place: Workplace, source: Checkpoint, contenders: Sequence[Contender]
) -> tuple[list[Contender], dict[str, str], dict[str, Fact]]:
    """Run each of those that make something once, and prove what it made.

    Returns those that may be measured, why others may not, and what the proofs found.
    """
    ours, naive, _ = _outputs(place)
    proofs: dict[str, Callable[[Contender], dict[str, Fact]]] = {
        OURS: lambda item: _prove_ours(ours),
        "naive": lambda item: _prove_naive(naive, ours),
        "mergekit": lambda item: _prove_resaved(item, source),
        "transformers": lambda item: _prove_resaved(item, source),
    }
    proven: list[Contender] = []
    skipped: dict[str, str] = {}
    facts: dict[str, Fact] = {}
    made_by_ours = any(item.name == OURS for item in contenders)
    for item in contenders:
        proof = proofs.get(item.name)
        if proof is not None and (item.name != "naive" or made_by_ours):
            place.say(f"  proving {item.name}")
            settle(item, [])
            try:
                run(item)
                facts |= proof(item)
            except ContenderError as error:
                if item.required:
                    raise ContenderError(f"{item.name}: {error}") from error
                skipped[item.name] = str(error)
                remove(item.output)
                continue
            if item.name != OURS:
                remove(item.output)
        proven.append(item)
    remove(ours)
    return proven, skipped, facts


def _prove_ours(out: Path) -> dict[str, Fact]:
    call(python("-m", "converter", "verify", out))
    return {"result_bytes": bytes_of(out)}


def _prove_naive(naive: Path, ours: Path) -> dict[str, Fact]:
    compare = python("-m", "benchmarks.same_tensors", ours / "model.safetensors", naive)
    said = ask([*compare, "--folded", "vocoder."])
    return {"naive_tensors_equal": said["tensors"]}


def _prove_resaved(item: Contender, source: Checkpoint) -> dict[str, Fact]:
    assert item.output is not None
    (made,) = item.output.glob("*.safetensors")
    said = ask(python("-m", "benchmarks.same_tensors", source.path, made, "--subset"))
    return {f"{item.name}_percent": round(100 * said["bytes"] / source.size_bytes, 1)}


def bars(contenders: Sequence[Measured]) -> list[Bar]:
    """Return what is to hold of the contenders that were measured."""
    by_name = {item.name: item for item in contenders}
    if OURS not in by_name:
        return []
    ours = by_name[OURS]
    found = []
    for name, item in by_name.items():
        if name != OURS:
            bar = Bar(f"time against {name}", ratio(ours.runs, item.runs), "ratio")
            bound = BOUNDS.get(name)
            found.append(bar if bound is None else replace(bar, sense="at most", bound=bound))
    return [*found, _memory_bar(ours)]


def _memory_bar(ours: Measured) -> Bar:
    peak = max(run["peak_rss_bytes"] for run in ours.runs)
    return Bar("peak memory", peak, "bytes", "at most", MEMORY_BOUND_BYTES)
