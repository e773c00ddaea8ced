"""Carry out a plan: read, apply, check, write; the same bytes whatever the number of workers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from converter.errors import ExecutionError, ValueRefusedError
from converter.finding import Finding
from converter.fold import fold_findings
from converter.lanes import Check, byte_runs, compute, memory_bytes, move, read
from converter.plan import Binding, Dropped, Plan
from converter.progress import Progress
from converter.source import Source
from converter.spec import DTYPES
from converter.steps.dtypes import numpy_dtype
from converter.steps.step import Runs, Tensors
from converter.target import CHUNK_BYTES, Target, Write, Written
from converter.values import disprove

# Units of work that take more memory than this together wait for each other.
_MEMORY_BYTES = 256 << 20

# Of each binding, by its targets: what was written, or why it was refused.
Outcomes: TypeAlias = "list[tuple[tuple[str, ...], dict[str, Written] | ValueRefusedError]]"
AtWork: TypeAlias = Callable[[], AbstractContextManager[None]]

# Measured: on several threads, tensors of some KB each take twice as long as on one, which all of
# them wait for.
_UNIT_BYTES = 8 << 20

_EXPECTED = {
    "arange": "0, 1, 2 and so on, in row-major order",
    "lower_triangular": "ones on and below the diagonal of the last two dims, zeros above",
}


def execute(
    plan: Plan,
    source: Source,
    write: Write,
    *,
    jobs: int,
    progress: Progress,
    at_work: AtWork = nullcontext,
) -> dict[str, Written]:
    """Make every canonical tensor and pass its bytes to ``write``; return what was written.

    What the rule file says of dropped tensors is proven, too.
    ``write(name, begin, data)`` is called for a target from one thread, in order, and from several
    threads for different ones, each in a block of ``at_work``; ``progress`` is told the bytes
    written, as they are, and those of all targets. Raises ValueRefusedError with all findings when
    values are refused, and whatever ``source`` and ``write`` raise.
    """
    worker = _Worker(plan, source, write, progress, at_work)
    written: dict[str, Written] = {}
    findings: list[Finding] = []
    with _pool(jobs) as pool:
        proofs = [pool.submit(worker.prove, dropped) for dropped in plan.dropped if dropped.expect]
        made = [pool.submit(worker.make_all, some) for some in _units(_in_turns(plan, files=jobs))]
        for proof in proofs:
            if refused := proof.result():
                findings.extend(refused.findings)
        outcomes = dict(outcome for unit in made for outcome in unit.result())
    for binding in plan.bindings:
        outcome = outcomes[binding.targets]
        if isinstance(outcome, ValueRefusedError):
            findings.extend(outcome.findings)
        else:
            written.update(outcome)
    if findings:
        raise ValueRefusedError.of(fold_findings(findings))
    return written


def _in_turns(plan: Plan, *, files: int) -> list[Binding]:
    """Return the bindings in the order of their bytes, for so many files side by side."""
    places = {
        placement.name: (number // files, placement.begin, number)
        for number, shard in enumerate(plan.shards)
        for placement in shard.placements
    }
    return sorted(
        plan.bindings,
        key=lambda binding: min(places[name] for name in binding.targets if name in places),
    )


def _units(bindings: Iterable[Binding]) -> Iterator[list[Binding]]:
    """Yield bindings, small ones that follow each other together: in order, for one worker."""
    unit: list[Binding] = []
    size = 0
    for binding in bindings:
        more = sum(spec.nbytes for spec in (*binding.inputs, *binding.outputs))
        if unit and size + more > _UNIT_BYTES:
            yield unit
            unit, size = [], 0
        unit.append(binding)
        size += more
    if unit:
        yield unit


def _begin_worker() -> None:
    # A thread inherits from its maker whether the CPU flushes tiny numbers, which changes bytes.
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@contextmanager
def _pool(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of ``jobs`` workers; on an error, what has not begun is dropped."""
    pool = ThreadPoolExecutor(jobs, initializer=_begin_worker)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class _Memory:
    """How much memory the units of work at hand take; what would take too much has to wait."""

    def __init__(self) -> None:
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taking(self, size: int) -> Iterator[None]:
        """Wait until ``size`` bytes fit beside the rest, or until there is no rest."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + size <= _MEMORY_BYTES)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class _Worker:
    plan: Plan
    source: Source
    write: Write
    progress: Progress
    at_work: AtWork
    memory: _Memory = field(default_factory=_Memory)

    def make_all(self, bindings: Iterable[Binding]) -> Outcomes:
        """Make the targets of some bindings; return what was written, or why it was refused."""
        lanes = [(binding, byte_runs(binding)) for binding in bindings]
        size = sum(memory_bytes(binding) for binding, runs in lanes if runs is None)
        outcomes: Outcomes = []
        with self.memory.taking(size) if size else nullcontext(), self.at_work():
            for binding, runs in lanes:
                try:
                    outcomes.append((binding.targets, self.make(binding, runs)))
                except ValueRefusedError as error:
                    outcomes.append((binding.targets, error))
        return outcomes

    def make(self, binding: Binding, runs: tuple[Runs, ...] | None) -> dict[str, Written]:
        """Make, check and write the targets of one binding, of runs of bytes or computed."""
        with self.at(binding.line, ", ".join(binding.sources)):
            targets = self.targets(binding)
            if runs is None:
                compute(binding, self.source, targets, self.promise(binding))
            else:
                for target, parts in zip(targets, runs, strict=True):
                    move(self.source, binding.sources, parts, target)
            written = {target.name: target.finish() for target in targets}
            self.refuse_nonfinite(targets)
        return written

    def targets(self, binding: Binding) -> list[Target]:
        total = self.plan.total_bytes
        return [
            Target(name, spec, self.write, lambda size: self.progress(size, total))
            for name, spec in zip(binding.targets, binding.outputs, strict=True)
        ]

    def refuse_nonfinite(self, targets: Sequence[Target]) -> None:
        refused = [t for t in targets if t.nonfinite and t.name not in self.plan.allow_nan]
        if refused:
            raise ValueRefusedError.of([_nonfinite(target) for target in refused])

    @contextmanager
    def at(self, line: int, tensor: str) -> Iterator[None]:
        """Give a refusal its line in the rule file, and the name of a tensor if it has none."""
        try:
            yield
        except ValueRefusedError as error:
            where = self.plan.rule_file.where(line)
            raise ValueRefusedError.of(
                [replace(f, where=where, tensor=f.tensor or tensor) for f in error.findings]
            ) from error

    def promise(self, binding: Binding) -> Check:
        """Return what raises ExecutionError when the steps made something else than inferred."""

        def check(outputs: Tensors, rows: int | None) -> None:
            made = [(array.dtype, array.shape) for array in outputs]
            promised = [
                (numpy_dtype(spec.dtype), spec.shape if rows is None else (rows, *spec.shape[1:]))
                for spec in binding.outputs
            ]
            if made != promised:
                raise ExecutionError(
                    "a step made something else than it inferred: a defect of the step",
                    code="promise",
                    where=self.plan.rule_file.where(binding.line),
                    tensor=", ".join(binding.targets),
                    expected=str(promised),
                    got=str(made),
                )

        return check

    def prove(self, dropped: Dropped) -> ValueRefusedError | None:
        """Return why a dropped tensor is not what the rule file says, or else None."""
        try:
            self._prove(dropped)
        except ValueRefusedError as error:
            return error
        return None

    def _prove(self, dropped: Dropped) -> None:
        with self.at(dropped.line, dropped.name):
            if difference := self.difference(dropped):
                raise ValueRefusedError(
                    "a tensor that would be dropped is not what the rule says it is",
                    code="expect",
                    expected=_EXPECTED.get(dropped.expect or "", f"the same as {dropped.equals}"),
                    got=difference,
                    hint="the network would not rebuild it: keep the tensor, or mend the source",
                )

    def difference(self, dropped: Dropped) -> str | None:
        """Return how a dropped tensor differs from what the rule file says it is."""
        spec = self.source.header[dropped.name]
        if dropped.equals is not None:
            return _first_difference(self.source, dropped.name, dropped.equals, spec.nbytes)
        if DTYPES[spec.dtype].bits < 8:
            return f"values of {spec.dtype}"
        with self.memory.taking(spec.nbytes):
            return disprove(dropped.expect or "", read(self.source, dropped.name))


def _nonfinite(target: Target) -> Finding:
    return Finding(
        "nonfinite",
        "the tensor holds NaN or infinity",
        tensor=target.name,
        expected="finite values",
        got=f"{target.nonfinite} of {target.spec.numel} values are not",
        hint="mend the source; a rule file may list the name under allow_nan if it is meant",
    )


def _first_difference(source: Source, name: str, twin: str, size: int) -> str | None:
    """Return where two tensors of ``size`` bytes differ first."""
    ours, theirs = bytearray(min(size, CHUNK_BYTES)), bytearray(min(size, CHUNK_BYTES))
    for begin in range(0, size, CHUNK_BYTES):
        part = min(CHUNK_BYTES, size - begin)
        source.read_into(name, memoryview(ours)[:part], begin)
        source.read_into(twin, memoryview(theirs)[:part], begin)
        if ours[:part] != theirs[:part]:
            pairs = enumerate(zip(ours, theirs, strict=True), start=begin)
            first = next(at for at, (a, b) in pairs if a != b)
            return f"another byte at {first} of {size}"
    return None
