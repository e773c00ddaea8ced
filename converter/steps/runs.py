"""Where steps only move elements: which runs of the inputs an output consists of.

A tensor that is only renamed, or cut and joined along its first axis, is a few long runs of bytes,
and can be moved without being decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise, product
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
    rows, inner = prod(shape[:dim]), prod(shape[dim + 1 :])
    if rows * len(sizes) > MAX_RUNS:
        return None
    begins = list(accumulate(sizes, initial=0))
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


def reordered_blocks(
    shape: Shape, dim: int, sizes: Sequence[int], order: Sequence[int]
) -> Runs | None:
    """Return the runs of pieces of ``sizes`` along ``dim``, put in ``order``; None for too many."""
    pieces = cuts(shape, dim, sizes)
    if pieces is None:
        return None
    return tuple(run for row in zip(*(pieces[n] for n in order), strict=True) for run in row)


def reordered_dims(shape: Shape, order: Sequence[int]) -> Runs | None:
    """Return the runs of a tensor of ``shape`` with its dims in ``order``; None for too many.

    >>> reordered_dims((2, 3, 4), (1, 0, 2))[:2]
    (Run(number=0, begin=0, end=4), Run(number=0, begin=12, end=16))
    """
    if 0 in shape:
        return ()
    strides = [prod(shape[dim + 1 :]) for dim in range(len(shape))]
    moved = [dim for dim in order if shape[dim] > 1]
    length = 1
    while moved and strides[moved[-1]] == length:
        length *= shape[moved.pop()]
    if prod(shape[dim] for dim in moved) > MAX_RUNS:
        return None
    steps = (range(0, shape[dim] * strides[dim], strides[dim]) for dim in moved)
    begins = map(sum, product(*steps))
    return tuple(Run(0, begin, begin + length) for begin in begins)


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
