"""Whatever lane makes a tensor, and however little of it at a time, its bytes are the same."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from arrays import apply_steps
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import HEAD, write_rules, write_source

from converter import api, lanes
from converter.errors import ValueRefusedError
from converter.execute import execute
from converter.lanes import byte_runs, memory_bytes, rows_at_a_time
from converter.plan import Binding, Plan
from converter.source import open_source
from converter.spec import TensorSpec
from converter.steps import STEPS
from converter.steps.chain import infer_chain
from converter.steps.runs import MAX_RUNS, chain_runs
from converter.steps.step import Run, Step

RULES = (
    HEAD
    + """
dtypes: [F32]
rules:
  - {from: renamed, to: {renamed: [6, 5]}}
  - from: qkv
    steps: [split: {dim: 0, sizes: [4, 2, 6]}]
    to: {q: [4, 5], k: [2, 5], v: [6, 5]}
  - from: heads
    steps:
      - reshape: {shape: [2, 3, 2, 5]}
      - unstack: {dim: 1}
      - reshape: {shape: [4, 5]}
    to: {hq: [4, 5], hk: [4, 5], hv: [4, 5]}
  - {from: conv1d, steps: [transpose], to: {linear: [5, 7]}}
  - {from: [g, v], steps: [fold_weight_norm: {dim: 0}], to: {folded: [6, 5]}}
  - {from: wide, steps: [cast: {dtype: BF16}], to: {narrow: [6, 5]}}
  - from: cut
    steps: [split: {dim: 1, sizes: [1, 4]}]
    to: {left: [6, 1], right: [6, 4]}
  - {from: [first, second], steps: [concat: {dim: 0}], to: {both: [5, 3]}}
"""
)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "renamed": (6, 5),
        "qkv": (12, 5),
        "heads": (12, 5),
        "conv1d": (7, 5),
        "g": (6, 1),
        "v": (6, 5),
        "wide": (6, 5),
        "cut": (6, 5),
        "first": (2, 3),
        "second": (3, 3),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def made(plan: Plan, source: Path, jobs: int = 1) -> dict[str, bytes]:
    found: dict[str, bytes] = {}

    def write(name: str, begin: int, data: memoryview) -> None:
        assert len(found.get(name, b"")) == begin
        found[name] = found.get(name, b"") + bytes(data)

    with open_source(source) as opened:
        execute(plan, opened, write, jobs=jobs, progress=lambda done, total: None)
    return found


def binding_of(plan: Plan, target: str) -> Binding:
    return next(binding for binding in plan.bindings if target in binding.targets)


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Plan, Path]:
    source = write_source(tmp_path, tensors())
    return api.plan(source, rules=write_rules(tmp_path, RULES)), source


@pytest.mark.parametrize("chunk", [1 << 20, 64, 20])
@pytest.mark.parametrize("slab", [1 << 20, 100, 1])
def test_every_lane_gives_what_the_steps_give(
    planned: tuple[Plan, Path], chunk: int, slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, source = planned
    monkeypatch.setattr(lanes, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(lanes, "_buffer", lanes._Buffer())
    monkeypatch.setattr(lanes, "SLAB_BYTES", slab)
    found = made(plan, source, jobs=2)
    values = tensors()
    for binding in plan.bindings:
        outputs = apply_steps(binding.steps, [values[name] for name in binding.sources])
        for name, output in zip(binding.targets, outputs, strict=True):
            assert found[name] == output.contiguous().view(torch.uint8).numpy().tobytes(), name


def test_what_is_only_renamed_cut_or_joined_in_long_runs_is_never_decoded(
    planned: tuple[Plan, Path],
) -> None:
    plan, _ = planned
    moved = {name for binding in plan.bindings if byte_runs(binding) for name in binding.targets}
    assert moved == {"renamed", "q", "k", "v", "hq", "hk", "hv", "left", "right", "both"}
    assert byte_runs(binding_of(plan, "k")) == (
        (Run(0, 0, 80),),
        (Run(0, 80, 120),),
        (Run(0, 120, 240),),
    )
    assert byte_runs(binding_of(plan, "both")) == ((Run(0, 0, 24), Run(1, 0, 36)),)


def test_short_scattered_runs_are_moved_in_memory(tmp_path: Path) -> None:
    rules = "dtypes: [F32]\nrules:\n  - {from: w, steps: [split: {dim: 1, sizes: [1, 1]}], "
    source = write_source(tmp_path, {"w": torch.randn(100, 2)})
    plan = api.plan(
        source, rules=write_rules(tmp_path, HEAD + rules + "to: {a: [100, 1], b: [100, 1]}}\n")
    )
    assert byte_runs(plan.bindings[0]) is None
    assert set(made(plan, source)) == {"a", "b"}


def test_arithmetic_takes_some_rows_at_a_time_and_a_transposition_all(
    planned: tuple[Plan, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _ = planned
    monkeypatch.setattr(lanes, "SLAB_BYTES", 40)
    assert rows_at_a_time(binding_of(plan, "folded")) == 2
    assert rows_at_a_time(binding_of(plan, "narrow")) == 2
    assert rows_at_a_time(binding_of(plan, "linear")) is None
    assert memory_bytes(binding_of(plan, "linear")) == 2 * 7 * 5 * 4


def test_a_refusal_counts_all_rows_even_when_a_few_were_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "SLAB_BYTES", 8)
    rules = "dtypes: [F32]\nrules:\n  - {from: w, steps: [cast: {dtype: F16}], to: {w: [8, 2]}}\n"
    values = torch.zeros(8, 2)
    values[1, 0] = values[7, 1] = 1e6
    source = write_source(tmp_path, {"w": values})
    plan = api.plan(source, rules=write_rules(tmp_path, HEAD + rules))
    with pytest.raises(ValueRefusedError, match="2 of 16 values overflow F16"):
        made(plan, source)


# Runs of several steps


@settings(deadline=None)
@given(st.lists(st.sampled_from(range(5)), max_size=5), st.integers(0, 2))
def test_the_runs_of_a_chain_are_those_of_its_steps_in_a_row(
    kinds: Sequence[int], dim: int
) -> None:
    spec = TensorSpec("I32", (4, 2, 6))
    menu: list[tuple[str, Step]] = [
        ("chunk", STEPS["chunk"](dim, 2)),  # type: ignore[call-arg]
        ("concat", STEPS["concat"](dim)),  # type: ignore[call-arg]
        ("reorder", STEPS["reorder_chunks"](dim, (1, 0))),  # type: ignore[call-arg]
        ("unsqueeze", STEPS["unsqueeze"](dim)),  # type: ignore[call-arg]
        ("stack", STEPS["stack"](dim)),  # type: ignore[call-arg]
    ]
    steps: list[Step] = []
    for kind in kinds:
        try:
            infer_chain([*steps, menu[kind][1]], (spec,))
        except Exception:
            continue
        steps.append(menu[kind][1])
    runs = chain_runs(steps, (spec,))
    assert runs is not None
    values = torch.arange(math.prod(spec.shape), dtype=torch.int32)
    outputs = apply_steps(steps, [values.view(spec.shape)])
    for output, parts in zip(outputs, runs, strict=True):
        moved = torch.cat([values[run.begin : run.end] for run in parts])
        assert moved.tolist() == output.reshape(-1).tolist()
        assert all(a.end != b.begin for a, b in pairwise(parts)), "not merged"


def test_too_many_runs_are_none() -> None:
    spec = TensorSpec("F32", (MAX_RUNS, 2))
    assert chain_runs([STEPS["chunk"](1, 2)], (spec,)) is None  # type: ignore[call-arg]
