"""Carry out a plan: read, apply, check, write; the same bytes whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from converter.canonical import PIECE_BYTES
from converter.digest import sha256
from converter.errors import ExecutionError, ValueRefusedError
from converter.finding import Finding
from converter.fold import fold_findings
from converter.manifest import Statistics
from converter.plan import Binding, Dropped, Plan
from converter.progress import Progress
from converter.source import Source
from converter.spec import DTYPES, TensorSpec
from converter.steps.chain import apply_chain
from converter.steps.constant import Constant
from converter.steps.dtypes import torch_dtype
from converter.values import bytes_of, count_nonfinite, disprove, statistics

Write: TypeAlias = Callable[[str, memoryview], None]

_EXPECTED = {
    "arange": "0, 1, 2 and so on, in row-major order",
    "lower_triangular": "ones on and below the diagonal of the last two dims, zeros above",
}


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


def _begin_worker() -> None:
    torch.set_num_threads(1)
    # A thread inherits this mode of the CPU from the caller's, and it changes the bytes.
    torch.set_flush_denormal(False)


@contextmanager
def _pool(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose workers compute on one core each; on an error, what has not begun is dropped."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(jobs, initializer=_begin_worker)
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
        """Make, check and write the targets of one binding."""
        written: dict[str, Written] = {}
        findings: list[Finding] = []
        with self.at(binding.line, ", ".join(binding.sources)):
            tensors = self.outputs(binding)
            for name, spec, tensor in zip(binding.targets, binding.outputs, tensors, strict=True):
                tensor = tensor.contiguous()  # copied once, for statistics and bytes alike
                stats = statistics(tensor) if _has_values(spec) else None
                if name not in self.plan.allow_nan and (bad := count_nonfinite(tensor, stats)):
                    findings.append(_nonfinite(name, bad, tensor.numel()))
                else:
                    written[name] = self.store(name, tensor, stats)
            if findings:
                raise ValueRefusedError.of(findings)
        return written

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

    def outputs(self, binding: Binding) -> Sequence[Tensor]:
        """Return the targets of a binding; those of a dtype without values as their bytes."""
        if binding.stand_in is not None:
            number = 0 if binding.stand_in.fill == "zeros" else 1
            constants = [Constant(number, spec.shape, spec.dtype) for spec in binding.outputs]
            return [constant.apply(())[0] for constant in constants]
        outputs = apply_chain(binding.steps, [self.read(name) for name in binding.sources])
        if binding.steps:
            self.check_promise(binding, outputs)
        return outputs

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

    def store(self, name: str, tensor: Tensor, stats: Statistics | None) -> Written:
        """Write the bytes of a target, and return its digests and statistics."""
        data = bytes_of(tensor).numpy().data
        self.write(name, data)
        starts = range(0, len(data), PIECE_BYTES) if len(data) > PIECE_BYTES else ()
        pieces = tuple(sha256(data[begin : begin + PIECE_BYTES]) for begin in starts)
        self.progress(len(data), self.plan.total_bytes)
        return Written(sha256(data), pieces, stats)

    def prove(self, dropped: Dropped) -> dict[str, Written]:
        """Prove what the rule file says a dropped tensor is."""
        with self.at(dropped.line, dropped.name):
            if difference := self.difference(dropped):
                raise ValueRefusedError(
                    "a tensor that would be dropped is not what the rule says it is",
                    code="expect",
                    expected=_EXPECTED.get(dropped.expect or "", f"the same as {dropped.equals}"),
                    got=difference,
                    hint="the network would not rebuild it: keep the tensor, or mend the source",
                )
        return {}

    def difference(self, dropped: Dropped) -> str | None:
        """Return how a dropped tensor differs from what the rule file says it is."""
        spec = self.source.header[dropped.name]
        if dropped.equals is not None:
            return _first_difference(*map(self.source.read, (dropped.name, dropped.equals)))
        if not _has_values(spec):
            return f"values of {spec.dtype}"
        return disprove(dropped.expect or "", self.read(dropped.name))

    def read(self, name: str) -> Tensor:
        """Return a source tensor; raise ValueRefusedError for a boolean that is none."""
        spec = self.source.header[name]
        tensor = _decode(self.source.read(name), spec)
        if spec.dtype == "BOOL" and (wrong := int((tensor.view(torch.uint8) > 1).sum())):
            raise ValueRefusedError(
                "a boolean tensor holds bytes other than 0 and 1",
                code="boolean",
                tensor=name,
                expected="0 or 1",
                got=f"{wrong} of {tensor.numel()} bytes are not",
                hint="mend the source: what such a byte means depends on who reads it",
            )
        return tensor


def _nonfinite(name: str, count: int, total: int) -> Finding:
    return Finding(
        "nonfinite",
        "the tensor holds NaN or infinity",
        tensor=name,
        expected="finite values",
        got=f"{count} of {total} values are not",
        hint="mend the source; a rule file may list the name under allow_nan if it is meant",
    )


def _has_values(spec: TensorSpec) -> bool:
    """Whether torch can take the elements apart: those narrower than a byte are moved whole."""
    return DTYPES[spec.dtype].bits >= 8


def _decode(data: bytearray, spec: TensorSpec) -> Tensor:
    """Return the bytes as a tensor, without a copy; U8 when they cannot be taken apart."""
    dtype = torch_dtype(spec.dtype) if _has_values(spec) else torch.uint8
    shape = spec.shape if _has_values(spec) else (len(data),)
    return (
        torch.frombuffer(data, dtype=dtype).view(shape) if data else torch.empty(shape, dtype=dtype)
    )


def _first_difference(data: bytearray, twin: bytearray) -> str | None:
    if data == twin:
        return None
    first = next(at for at, (a, b) in enumerate(zip(data, twin, strict=True)) if a != b)
    return f"another byte at {first} of {len(data)}"
