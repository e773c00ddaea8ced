"""Where steps only move elements: which runs of the inputs an output consists of.

A tensor that is only renamed, or cut and joined along its first axis, is a few long runs of bytes,
and can be moved without being decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod

from converter.spec import Shape, TensorSpec
from converter.steps.step import Run, Runs, Specs, Step

# Beyond it, runs are so short that it is quicker to move elements in memory.
MAX_RUNS = 1 << 12


def whole(spec: TensorSpec) -> Runs:
    """Return all elements of the first input, as one run."""
    return (Run(0, 0, spec.numel),)


def cuts(shape: Shape, dim: int, sizes: Sequence[int]) -> tuple[Runs, ...] | None:
    """Return the runs of consecutive pieces of ``sizes`` along ``dim``; None for too many.

    >>> cuts((2, 3), 1, (1, 2))[0]
    (Run(number=0, begin=0, end=1), Run(number=0, begin=3, end=4))
    """
    begins = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    rows, inner = prod(shape[:dim]), prod(shape[dim + 1 :])
    if rows * len(sizes) > MAX_RUNS:
        return None
    return tuple(
        tuple(
            Run(0, (row * shape[dim] + begin) * inner, (row * shape[dim] + end) * inner)
            for row in range(rows)
        )
        for begin, end in pairwise(begins)
    )


def joined(shapes: Sequence[Shape], dim: int) -> Runs | None:
    """Return the runs of tensors laid end to end along ``dim``; None for too many."""
    rows = prod(shapes[0][:dim])
    if rows * len(shapes) > MAX_RUNS:
        return None
    sizes = [prod(shape[dim:]) for shape in shapes]
    return tuple(
        Run(number, row * size, (row + 1) * size)
        for row in range(rows)
        for number, size in enumerate(sizes)
    )


def chain_runs(steps: Sequence[Step], inputs: Specs) -> tuple[Runs, ...] | None:
    """Return, for each output of ``steps``, the runs of ``inputs`` that it consists of.

    None when elements are changed, or moved in more than a few thousand runs. ``inputs`` are such
    that the steps take them.
    """
    specs = inputs
    made: list[Runs] = [(Run(number, 0, spec.numel),) for number, spec in enumerate(inputs)]
    for step in steps:
        groups = [range(len(specs))] if step.takes == "all" else [[n] for n in range(len(specs))]
        outputs: list[Runs] = []
        for group in groups:
            moved = step.runs(tuple(specs[number] for number in group))
            if moved is None:
                return None
            outputs += (_composed([made[number] for number in group], runs) for runs in moved)
        if sum(map(len, outputs)) > MAX_RUNS:
            return None
        specs = tuple(
            spec for group in groups for spec in step.infer(tuple(specs[n] for n in group))
        )
        made = outputs
    return tuple(made)


def _composed(made: Sequence[Runs], runs: Runs) -> Runs:
    """Return ``runs`` over tensors that consist themselves of the runs ``made``."""
    return _merged(part for run in runs for part in _within(made[run.number], run.begin, run.end))


def _within(runs: Runs, begin: int, end: int) -> Iterable[Run]:
    """Yield the elements ``[begin, end)`` of what ``runs`` lay end to end."""
    start = 0
    for run in runs:
        size = run.end - run.begin
        first, last = max(begin - start, 0), min(end - start, size)
        if first < last:
            yield Run(run.number, run.begin + first, run.begin + last)
        start += size


def _merged(runs: Iterable[Run]) -> Runs:
    merged: list[Run] = []
    for run in runs:
        if merged and (merged[-1].number, merged[-1].end) == (run.number, run.begin):
            merged[-1] = Run(run.number, merged[-1].begin, run.end)
        else:
            merged.append(run)
    return tuple(merged)
