"""How the bytes of targets are made: moved as they are, or computed, some rows at a time or whole.

A lane takes one binding and hands the bytes of each target, in row-major order, to its
``Target``. All lanes give the same bytes; they differ in what must be in memory at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from converter.errors import ValueRefusedError
from converter.plan import Binding
from converter.source import Source
from converter.spec import DTYPES, TensorSpec
from converter.steps.chain import apply_chain
from converter.steps.constant import Constant
from converter.steps.dtypes import numpy_dtype
from converter.steps.runs import chain_runs
from converter.steps.step import Array, Run, Runs, Tensors
from converter.target import CHUNK_BYTES, Target
from converter.values import bytes_of

# ``check(outputs, rows)``: raise unless these are the inferred outputs; ``rows`` is how many rows
# of them were asked for, None for all.
Check = Callable[[Tensors, int | None], None]

# Measured: many shorter runs are quicker to move in memory than to read one by one.
_SHORT_RUN_BYTES = 64 << 10
_FEW_RUNS = 16

# What arithmetic works on at a time; it makes several float64 arrays of as many elements.
SLAB_BYTES = 4 << 20


def byte_runs(binding: Binding) -> tuple[Runs, ...] | None:
    """Return the runs of source bytes that each target is; None where it is more than that."""
    if binding.stand_in is not None or any(spec.dtype == "BOOL" for spec in binding.inputs):
        return None  # the bytes of booleans are looked at
    if not binding.steps:  # also for a dtype narrower than a byte
        return tuple((Run(n, 0, spec.nbytes),) for n, spec in enumerate(binding.inputs))
    made = chain_runs(binding.steps, binding.inputs)
    if made is None:
        return None
    targets = zip(made, binding.outputs, strict=True)
    if any(
        len(runs) > _FEW_RUNS and spec.nbytes < len(runs) * _SHORT_RUN_BYTES
        for runs, spec in targets
    ):
        return None
    width = DTYPES[binding.inputs[0].dtype].bits // 8
    return tuple(
        tuple(Run(run.number, run.begin * width, run.end * width) for run in runs) for runs in made
    )


def move(source: Source, names: Sequence[str], runs: Runs, target: Target) -> None:
    """Move the bytes of ``target``, which are ``runs`` of the source tensors ``names``."""
    buffer = _buffer.view
    filled = 0
    for run in runs:
        position = run.begin
        while position < run.end:
            size = min(CHUNK_BYTES - filled, run.end - position)
            source.read_into(names[run.number], buffer[filled : filled + size], position)
            filled += size
            position += size
            if filled == CHUNK_BYTES:
                target.add(buffer)
                filled = 0
    target.add(buffer[:filled])


class _Buffer(threading.local):
    """What a thread moves bytes through."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(CHUNK_BYTES))


_buffer = _Buffer()


def compute(binding: Binding, source: Source, targets: Sequence[Target], check: Check) -> None:
    """Apply the steps of a binding, or fill its stand-in, and pass the results to ``targets``.

    Raises ValueRefusedError as the steps do, and for a boolean that is none.
    """
    rows = rows_at_a_time(binding)
    try:
        for tensors in _sources(binding, source, rows):
            outputs = _apply(binding, tensors, targets)
            if binding.steps:
                check(outputs, None if rows is None else len(tensors[0]))
            for target, output in zip(targets, outputs, strict=True):
                for data in _row_major(output):
                    target.add(data)
    except ValueRefusedError:
        if rows is not None:  # to be refused again, with the figures of all rows
            apply_chain(binding.steps, [read(source, name) for name in binding.sources])
        raise


def rows_at_a_time(binding: Binding) -> int | None:
    """Return how many rows the steps are given at a time; None when they need all."""
    specs = (*binding.inputs, *binding.outputs)
    counts = {spec.shape[:1] for spec in specs}
    if not binding.inputs or not all(step.keeps_rows for step in binding.steps):
        return None
    if len(counts) != 1 or not (count := sum(counts.pop())):
        return None
    rows = max(1, SLAB_BYTES * count // max(spec.nbytes for spec in specs))
    return rows if rows < count else None


def memory_bytes(binding: Binding) -> int:
    """Return about how much memory ``compute`` takes for a binding."""
    size = sum(spec.nbytes for spec in (*binding.inputs, *binding.outputs))
    return size if rows_at_a_time(binding) is None else min(size, 8 * SLAB_BYTES)


def _sources(binding: Binding, source: Source, rows: int | None) -> Iterator[list[Array]]:
    """Yield all of the source tensors, or some rows of each at a time, overwritten by the next."""
    if rows is None:
        yield [read(source, name) for name in binding.sources]
        return
    (count,) = {spec.shape[0] for spec in binding.inputs}
    sizes = [spec.nbytes // count for spec in binding.inputs]
    buffers = [memoryview(bytearray(rows * size)) for size in sizes]
    for first in range(0, count, rows):
        some = min(rows, count - first)
        slabs = []
        for name, spec, size, buffer in zip(
            binding.sources, binding.inputs, sizes, buffers, strict=True
        ):
            data = buffer[: some * size]
            source.read_into(name, data, first * size)
            slabs.append(_decoded(data, TensorSpec(spec.dtype, (some, *spec.shape[1:])), name))
        yield slabs


def _apply(binding: Binding, tensors: Tensors, targets: Sequence[Target]) -> Tensors:
    def count(flushed: Sequence[int]) -> None:
        # Of a list that other steps make shorter or longer, each counts for one of the targets.
        for number, values in enumerate(flushed):
            targets[min(number, len(targets) - 1)].flushed += values

    if binding.stand_in is None:
        return apply_chain(binding.steps, tensors, flushed=count)
    number = 0 if binding.stand_in.fill == "zeros" else 1
    constants = [Constant(number, spec.shape, spec.dtype) for spec in binding.outputs]
    return [constant.apply(())[0] for constant in constants]


def _row_major(array: Array) -> Iterator[memoryview]:
    """Yield the bytes of an array in row-major order; a strided one is copied in parts."""
    if array.flags.c_contiguous or array.nbytes <= SLAB_BYTES:
        yield bytes_of(array)
        return
    rows = SLAB_BYTES * len(array) // array.nbytes
    if rows < 1:
        for row in array:
            yield from _row_major(row)
        return
    for first in range(0, len(array), rows):
        yield bytes_of(array[first : first + rows])


def read(source: Source, name: str) -> Array:
    """Return a source tensor; raise ValueRefusedError for a boolean that is none.

    A dtype whose elements are narrower than a byte, and cannot be taken apart, is given as U8.
    """
    return _decoded(memoryview(source.read(name)), source.header[name], name)


def _decoded(data: memoryview, spec: TensorSpec, name: str) -> Array:
    if DTYPES[spec.dtype].bits < 8:
        return np.frombuffer(data, np.uint8)
    array = np.frombuffer(data, numpy_dtype(spec.dtype)).reshape(spec.shape)
    if spec.dtype == "BOOL" and (wrong := int((array.view(np.uint8) > 1).sum())):
        raise ValueRefusedError(
            "a boolean tensor holds bytes other than 0 and 1",
            code="boolean",
            tensor=name,
            expected="0 or 1",
            got=f"{wrong} of {array.size} bytes are not",
            hint="mend the source: what such a byte means depends on who reads it",
        )
    return array
