"""Carry out a plan: read, apply, check, write; the same bytes whatever the number of workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from converter.canonical import PIECE_BYTES
from converter.errors import ExecutionError, ValueRefusedError
from converter.finding import Finding
from converter.fold import fold_findings
from converter.manifest import Statistics
from converter.plan import Binding, Dropped, Plan
from converter.source import Source
from converter.spec import DTYPES, TensorSpec
from converter.steps.chain import apply_chain
from converter.steps.dtypes import torch_dtype
from converter.values import bytes_of, prove, refuse_nonfinite, statistics

Write: TypeAlias = Callable[[str, memoryview], None]
Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Written:
    """What is known of a canonical tensor once its bytes are written."""

    sha256: str
    pieces: tuple[str, ...]
    stats: Statistics | None


def execute(
    plan: Plan, source: Source, write: Write, *, jobs: int, progress: Progress
) -> dict[str, Written]:
    """Make every canonical tensor and hand its bytes to ``write``; return what was written.

    ``write(name, data)`` is called once for each target, from several threads, in no fixed order;
    ``progress`` is told the bytes of a target when it is done, and those of all. Raises
    ValueRefusedError with all findings when values are refused, and whatever ``source`` and
    ``write`` raise.
    """
    worker = _Worker(plan, source, write, progress)
    written: dict[str, Written] = {}
    findings: list[Finding] = []
    with _pool(jobs) as pool:
        proofs = [pool.submit(worker.prove, dropped) for dropped in plan.dropped if dropped.expect]
        made = [pool.submit(worker.make, binding) for binding in plan.bindings]
        for future in proofs:
            _gather(future, findings)
        for targets in made:
            written.update(_gather(targets, findings) or {})
    if findings:
        raise ValueRefusedError.of(fold_findings(findings))
    return written


@contextmanager
def _pool(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose workers compute on one core each; on an error, what has not begun is dropped."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(jobs, initializer=lambda: torch.set_num_threads(1))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _gather(
    future: Future[dict[str, Written]], findings: list[Finding]
) -> dict[str, Written] | None:
    try:
        return future.result()
    except ValueRefusedError as error:
        findings.extend(error.findings)
        return None


@dataclass(frozen=True, slots=True)
class _Worker:
    plan: Plan
    source: Source
    write: Write
    progress: Progress

    def make(self, binding: Binding) -> dict[str, Written]:
        """Make the targets of one binding; a single renamed tensor is never decoded."""
        if not binding.steps and len(binding.sources) == 1:
            data = memoryview(self.source.read(binding.sources[0]))
            spec = binding.outputs[0]
            tensor = _decode(data, spec) if DTYPES[spec.dtype].bits >= 8 else None
            return {binding.targets[0]: self.store(binding.targets[0], data, tensor)}
        outputs = self.outputs(binding)
        self.check_promise(binding, outputs)
        return {
            name: self.store(name, _encode(tensor), tensor)
            for name, tensor in zip(binding.targets, outputs, strict=True)
        }

    def outputs(self, binding: Binding) -> Sequence[Tensor]:
        if binding.stand_in is not None:
            number = 0 if binding.stand_in.fill == "zeros" else 1
            return [
                torch.full(spec.shape, number, dtype=torch_dtype(spec.dtype))
                for spec in binding.outputs
            ]
        inputs = [
            _decode(memoryview(self.source.read(name)), spec)
            for name, spec in zip(binding.sources, binding.inputs, strict=True)
        ]
        try:
            return apply_chain(binding.steps, inputs)
        except ValueRefusedError as error:
            where = self.plan.rule_file.where(binding.line)
            tensor = ", ".join(binding.sources)
            named = [replace(f, where=where, tensor=tensor) for f in error.findings]
            raise ValueRefusedError.of(named) from error

    def check_promise(self, binding: Binding, outputs: Sequence[Tensor]) -> None:
        """Raise ExecutionError when the steps made something else than they inferred."""
        made = [(tensor.dtype, tuple(tensor.shape)) for tensor in outputs]
        promised = [(torch_dtype(spec.dtype), spec.shape) for spec in binding.outputs]
        if made != promised:
            raise ExecutionError(
                "a step made something else than it inferred: a defect of the step",
                code="promise",
                where=self.plan.rule_file.where(binding.line),
                tensor=", ".join(binding.targets),
                expected=str(promised),
                got=str(made),
            )

    def store(self, name: str, data: memoryview, tensor: Tensor | None) -> Written:
        """Check the values of a target, write its bytes, and return its digests and statistics."""
        stats = None if tensor is None else statistics(tensor)
        if tensor is not None and tensor.dtype == torch.bool:
            _check_booleans(name, tensor)
        if name not in self.plan.allow_nan:
            refuse_nonfinite(name, stats)
        self.write(name, data)
        starts = range(0, len(data), PIECE_BYTES) if len(data) > PIECE_BYTES else ()
        written = Written(
            sha256=hashlib.sha256(data).hexdigest(),
            pieces=tuple(
                hashlib.sha256(data[begin : begin + PIECE_BYTES]).hexdigest() for begin in starts
            ),
            stats=stats,
        )
        self.progress(len(data), self.plan.total_bytes)
        return written

    def prove(self, dropped: Dropped) -> dict[str, Written]:
        """Prove what the rule file says a dropped tensor is."""
        tensor = self.tensor(dropped.name)
        twin = None if dropped.equals is None else self.tensor(dropped.equals)
        assert dropped.expect is not None
        try:
            prove(dropped.expect, dropped.name, tensor, twin)
        except ValueRefusedError as error:
            where = self.plan.rule_file.where(dropped.line)
            raise ValueRefusedError.of([replace(f, where=where) for f in error.findings]) from error
        return {}

    def tensor(self, name: str) -> Tensor:
        return _decode(memoryview(self.source.read(name)), self.source.header[name])


def _decode(data: memoryview, spec: TensorSpec) -> Tensor:
    dtype = torch_dtype(spec.dtype)
    if not len(data):
        return torch.empty(spec.shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).view(spec.shape)


def _encode(tensor: Tensor) -> memoryview:
    return bytes_of(tensor).numpy().data


def _check_booleans(name: str, tensor: Tensor) -> None:
    largest = int(tensor.view(torch.uint8).max()) if tensor.numel() else 0
    if largest > 1:
        raise ValueRefusedError(
            "a boolean tensor holds bytes other than 0 and 1",
            code="boolean",
            tensor=name,
            expected="0 or 1",
            got=str(largest),
        )
