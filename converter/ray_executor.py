"""A conversion spread over the machines of a Ray cluster, one task for each output file.

This process plans, takes the lock, tells each task its part of the plan, and gathers what they
answer into one manifest. The bytes are those of a run without a cluster. See ``ray_task`` for what
a task does, and ``ray_cluster`` for the cluster.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from converter.conversion import Maker
from converter.errors import (
    ConverterError,
    ExecutionError,
    SourceError,
    UsageError,
    ValueRefusedError,
)
from converter.finding import Finding
from converter.manifest import FileRecord
from converter.plan import Plan
from converter.progress import Progress
from converter.ray_cluster import connected
from converter.ray_task import Made, Part, SeenFile, digest_file, here, make_part, see
from converter.shards import Shards, parts_of, write_shards
from converter.signals import check
from converter.source import Source, SourceFile, open_again
from converter.target import Written
from converter.write import io_errors

Ref: TypeAlias = Any

# A task whose worker was killed, or whose machine is gone, begins anew as many times.
RETRIES = 3

# How long a wait is before Python looks whether a signal came, and for killed tasks to be gone.
_WAIT_SECONDS = 0.5
_END_SECONDS = 20.0


@contextmanager
def on_ray(address: str | None, jobs: int) -> Iterator[Maker]:
    """Yield who has the files of conversions made on a cluster; tasks left over are ended.

    ``address`` is as ``connected`` takes it, ``jobs`` is how many workers, and so cores, a task
    has. Raises UsageError when no machine of the cluster has so many, and as ``connected``.
    """
    with connected(address, cores=jobs) as ray:
        _require_cores(ray, jobs)
        tasks = _Tasks(ray)
        try:
            yield Maker(tasks.write_shards, tasks.source_records, tasks.begin)
        finally:
            tasks.end()


def too_few_files(plans: Iterable[Plan]) -> tuple[Finding, ...]:
    """Return the warning that there is nothing to spread, if there is not."""
    if sum(len(plan.shards) for plan in plans) > 1:
        return ()
    return (
        Finding(
            "one-file",
            "all of one output file is the work of one task, so nothing was spread",
            expected="several output files",
            got="1",
            hint="give --max-shard-size, or convert without --executor ray",
            severity="warning",
        ),
    )


def _require_cores(ray: Any, jobs: int) -> None:
    cores = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    # A cluster that starts machines when they are needed may have none at first.
    if 0 < max(cores, default=0) < jobs:
        raise UsageError(
            "no machine of the cluster has as many cores as a task is to have",
            expected=f"--jobs of at most {max(cores):g}",
            got=str(jobs),
        )


class _Tasks:
    """The tasks of one or several conversions, on a cluster, and what they have answered.

    Only ``source_records`` may be called by another thread than the rest.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._home = ray.put(here())
        self._parts: dict[Path, dict[Ref, Plan]] = {}
        self._digests: dict[tuple[SourceFile, ...], list[Ref]] = {}
        self._records: dict[tuple[SourceFile, ...], Future[tuple[FileRecord, ...]]] = {}
        self._pending: dict[Ref, None] = {}
        self._answers: dict[Ref, Any] = {}

    def begin(self, plan: Plan, source: Source, directory: Path, jobs: int) -> None:
        """Start the tasks of a conversion."""
        if not source.files:
            return  # a header alone, of which this process says what there is to say
        seen = {file: _see(file) for file in source.files}
        holders = _holders(source)
        task = self._task(make_part, jobs)
        self._parts[directory] = {}
        for piece in parts_of(plan):
            header = {name: source.header[name] for name in _names_read(piece)}
            files = {holders[name]: seen[holders[name]] for name in header}
            part = Part(piece, header, tuple(files.values()), directory, jobs)
            ref = task.remote(self._home, part)
            self._parts[directory][ref] = piece
            self._pending[ref] = None
        if source.files not in self._digests:
            task = self._task(digest_file, 1)
            refs = [task.remote(self._home, seen[file]) for file in source.files]
            self._digests[source.files] = refs
            self._records[source.files] = Future()
            self._pending.update(dict.fromkeys(refs))

    def write_shards(
        self, plan: Plan, source: Source, directory: Path, *, jobs: int, progress: Progress
    ) -> Shards:
        """Wait for the files of a plan that was begun, and put them into ``directory``.

        Raises what tasks answer instead; refusals of values all together.
        """
        if not source.files:
            return write_shards(plan, source, directory, jobs=jobs, progress=progress)
        parts, digests = self._parts[directory], self._digests[source.files]
        sizes = {
            ref: sum(item.spec.nbytes for shard in part.shards for item in shard.placements)
            for ref, part in parts.items()
        }
        try:
            for ref in self._as_answered({*parts, *digests}):
                if ref in sizes:
                    progress(sizes[ref], plan.total_bytes)
        finally:
            self._tell_records(source.files)
        answers = [self._answers[ref] for ref in parts]
        if refused := [a for a in answers if isinstance(a, ValueRefusedError)]:
            raise ValueRefusedError.of(_joined(f for error in refused for f in error.findings))
        return _gathered(directory, answers)

    def source_records(self, source: Source) -> tuple[FileRecord, ...]:
        """Return the records of a source's files, once ``write_shards`` has seen to them."""
        return self._records[source.files].result() if source.files else ()

    def end(self) -> None:
        """End all tasks that are still at work, and wait until they write no more."""
        for ref in self._pending:
            self._ray.cancel(ref, force=True)
        if self._pending:
            refs = list(self._pending)
            self._ray.wait(refs, num_returns=len(refs), timeout=_END_SECONDS)
        self._pending.clear()

    def _task(self, work: Any, cores: int) -> Any:
        # Spread, so that the work has the disks and networks of all machines.
        options = {"num_cpus": cores, "max_retries": RETRIES, "scheduling_strategy": "SPREAD"}
        return self._ray.remote(**options)(work)

    def _as_answered(self, wanted: Collection[Ref]) -> Iterator[Ref]:
        """Yield ``wanted`` tasks as they answer. Raises what any task answers, but for values."""
        left = set(wanted)
        while left:
            for ref in [ref for ref in left if ref in self._answers]:
                left.remove(ref)
                yield ref
            if not left:
                return
            ready, _ = self._ray.wait(list(self._pending), timeout=_WAIT_SECONDS)
            check()
            for ref in ready:
                self._answers[ref] = answer = _answer(self._ray, ref)
                del self._pending[ref]
                if isinstance(answer, ConverterError) and not isinstance(answer, ValueRefusedError):
                    raise answer

    def _tell_records(self, files: tuple[SourceFile, ...]) -> None:
        records, refs = self._records[files], self._digests[files]
        if records.done():
            return
        if all(ref in self._answers for ref in refs):
            records.set_result(tuple(self._answers[ref] for ref in refs))
        else:
            records.cancel()  # the reason is raised where it was found


def _answer(ray: Any, ref: Ref) -> Any:
    """Return what a task answers; what Ray says where it cannot, as an ExecutionError."""
    failures = ray.exceptions
    try:
        return ray.get(ref)
    except failures.RayTaskError as error:
        if not isinstance(error.cause, (ImportError, failures.RaySystemError)):
            raise  # a defect of ours
        return ExecutionError(
            "a worker cannot understand its task",
            code="worker",
            got=str(error.cause).partition("\n")[0],
            hint="every machine of the cluster needs checkpoint-converter, of the same version",
        )
    except failures.RayError as error:
        return ExecutionError(
            f"a task was lost, and {RETRIES} more attempts at it",
            code="worker",
            got=f"{type(error).__name__}: {' '.join(str(error).split())}",
            hint="its workers were killed: see the memory and the logs of the cluster's machines",
        )


def _see(file: SourceFile) -> SeenFile:
    seen = see(file)
    if seen.file.size_bytes != file.size_bytes:
        raise _changed(file)
    return seen


def _holders(source: Source) -> Mapping[str, SourceFile]:
    """Return which file each tensor lies in, by the headers of the files."""
    if len(source.files) == 1:
        return dict.fromkeys(source.header, source.files[0])
    found: dict[str, SourceFile] = {}
    for file in source.files:
        with open_again(file) as opened:
            found.update(dict.fromkeys(opened.header, file))
            same = all(source.header.get(name) == spec for name, spec in opened.header.items())
        if not same:
            raise _changed(file)
    if found.keys() != source.header.keys():
        raise _changed(source.files[0])
    return found


def _names_read(plan: Plan) -> Iterator[str]:
    for binding in plan.bindings:
        yield from binding.sources
    for dropped in plan.dropped:
        yield dropped.name
        if dropped.equals is not None:
            yield dropped.equals


def _gathered(directory: Path, answers: Iterable[Made]) -> Shards:
    """Move the files that tasks made into ``directory``, and remove what else they left there."""
    written: dict[str, Written] = {}
    files: list[FileRecord] = []
    data_starts: dict[str, int] = {}
    for made in answers:
        for record in made.shards.files:
            _require_shared(made.folder / record.name, record)
            with io_errors(directory / record.name):
                os.replace(made.folder / record.name, directory / record.name)
            files.append(record)
        written.update(made.shards.written)
        data_starts.update(made.shards.data_starts)
    for left in directory.iterdir():
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
    return Shards(written, tuple(files), data_starts)


def _require_shared(path: Path, record: FileRecord) -> None:
    """Raise ExecutionError unless the file that a worker made is seen from here."""
    with suppress(OSError):
        if path.stat().st_size == record.size:
            return
    raise ExecutionError(
        "a file that a worker made is not seen here, or another is",
        code="io",
        where=str(path),
        expected=f"{record.size:,} bytes",
        hint="the target must lie on a file system that all machines of the cluster share",
    )


def _changed(file: SourceFile) -> SourceError:
    return SourceError(
        "the file changed while the conversion began",
        code="changed",
        where=str(file.path),
        hint="run again when nothing writes to it",
    )


def _joined(findings: Iterable[Finding]) -> list[Finding]:
    """Join findings of several tasks that differ in nothing but the tensors."""
    tensors: dict[Finding, dict[str, None]] = {}
    for finding in findings:
        named = tensors.setdefault(replace(finding, tensor=None), {})
        named.update(dict.fromkeys([finding.tensor] if finding.tensor else []))
    return [replace(finding, tensor=", ".join(named) or None) for finding, named in tensors.items()]
