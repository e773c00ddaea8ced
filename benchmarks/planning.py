"""Planning: how long the plan of 100,000 tensors takes beyond start-up."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.checkpoint import TensorShape, encode_header
from benchmarks.measure import Contender, ContenderError, ask, interleaved, middle, python
from benchmarks.result import Bar, Result, measured
from benchmarks.workplace import Workplace

LAYERS = 50
EXPERTS = 500
# Of each expert: what the rules below name.
TENSORS_PER_EXPERT = 4
BOUND_SECONDS = 2.0

RULES = """\
# yaml-language-server: $schema=../schemas/rules.schema.json
format: 1
model: experts
title: A mixture of many small experts, made up to be planned
origin: benchmarks/planning.py
dtypes: [BF16]
dims: {layers: LAYERS, experts: EXPERTS, hidden: 64, ffn: 32}
index: {i: layers, e: experts}
sets:
  leaf: {gamma: weight, beta: bias}
rules:
  - from: model.layers.{i}.mlp.experts.{e}.gate_up_proj.weight
    steps:
      - chunk: {dim: 0, chunks: 2}
    to:
      blocks.{i}.experts.{e}.gate_proj.weight: [ffn, hidden]
      blocks.{i}.experts.{e}.up_proj.weight: [ffn, hidden]
  - from: model.layers.{i}.mlp.experts.{e}.down_proj.weight
    steps:
      - transpose
    to:
      blocks.{i}.experts.{e}.down_proj.weight: [ffn, hidden]
  - from: model.layers.{i}.mlp.experts.{e}.norm.{leaf}
    to:
      blocks.{i}.experts.{e}.norm.{leaf}: [hidden]
"""


def planning(place: Workplace, experts: int = EXPERTS) -> Result:
    """Measure the plan of a header of 100,000 tensors, kept as JSON and as a file of tensors."""
    whole, tiny = place.scratch / "plan", place.scratch / "plan-tiny"
    write_source(whole, LAYERS, experts)
    write_source(tiny, 1, 1)
    contenders = [
        Contender("ours", "plan of a header kept as JSON", _plan(whole, "header.json")),
        Contender("ours (file)", "plan of a file of tensors", _plan(whole, "model.safetensors")),
        Contender("start-up", "plan of 4 tensors", _plan(tiny, "header.json")),
    ]
    planned = ask([*_plan(whole, "header.json"), "--json"])["result"]["totals"]["tensors"]
    count = LAYERS * experts * TENSORS_PER_EXPERT
    if planned != (made := count + LAYERS * experts):
        raise ContenderError(f"the plan makes {planned} tensors, not {made}")
    rounds = interleaved(contenders, rounds=place.rounds, inputs=[], say=place.say)
    start_up = middle(rounds.runs["start-up"], "seconds")
    bars = (
        Bar(
            "beyond start-up",
            middle(rounds.runs["ours"], "seconds") - start_up,
            "s",
            "at most",
            BOUND_SECONDS,
        ),
        Bar(
            "beyond start-up, from a file of tensors",
            middle(rounds.runs["ours (file)"], "seconds") - start_up,
            "s",
            "at most",
            BOUND_SECONDS,
        ),
    )
    return Result(
        bench="plan",
        title=f"Plan of {count:,} tensors",
        quantities=("seconds",),
        date=datetime.now(UTC).date().isoformat(),
        facts={"source_tensors": count, "canonical_tensors": made},
        contenders=measured([(item.name, item.what) for item in contenders], rounds.runs),
        bars=bars,
        notes=("Whole processes. Two fifths of the tensors go through a step.",),
    )


def _plan(folder: Path, name: str) -> list[str | Path]:
    return python("-m", "converter", "plan", "--rules", folder / "rules.yaml", folder / name)


def write_source(folder: Path, layers: int, experts: int) -> None:
    """Write the header of a model of many experts, twice, and its rule file.

    The file of tensors is as long as its header says, and holes: a plan reads no values.
    """
    header = {}
    for layer in range(layers):
        for expert in range(experts):
            prefix = f"model.layers.{layer}.mlp.experts.{expert}."
            header[f"{prefix}gate_up_proj.weight"] = TensorShape("BF16", (64, 64))
            header[f"{prefix}down_proj.weight"] = TensorShape("BF16", (64, 32))
            header[f"{prefix}norm.gamma"] = TensorShape("BF16", (64,))
            header[f"{prefix}norm.beta"] = TensorShape("BF16", (64,))
    folder.mkdir(exist_ok=True)
    rules = RULES.replace("LAYERS", str(layers)).replace("EXPERTS", str(experts))
    (folder / "rules.yaml").write_text(rules, "utf-8")
    entries = {name: {"dtype": item.dtype, "shape": item.shape} for name, item in header.items()}
    (folder / "header.json").write_text(json.dumps(entries), "utf-8")
    write_holes(folder / "model.safetensors", header)


def write_holes(path: Path, header: dict[str, TensorShape]) -> None:
    """Write a file of tensors that has its length, and takes the disk for its header alone."""
    encoded = encode_header(header)
    with path.open("wb") as file:
        file.write(encoded)
        file.truncate(len(encoded) + sum(item.size_bytes for item in header.values()))
