"""Output files, made from a plan: written, digested and on disk.

One file is a unit of work of its own: whoever makes some of them, wherever, makes the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from converter.manifest import FileRecord
from converter.plan import Plan, Shard
from converter.progress import Progress
from converter.source import Source
from converter.target import Written
from converter.write import WeightsFile


@dataclass(frozen=True, slots=True)
class Shards:
    """Some of a conversion's weights files, once they are on disk.

    ``data_starts`` says for each file where its data starts, in bytes.
    """

    written: Mapping[str, Written]
    files: tuple[FileRecord, ...]
    data_starts: Mapping[str, int]


def write_shards(
    plan: Plan,
    source: Source,
    directory: Path,
    *,
    jobs: int,
    progress: Progress,
    shards: Sequence[Shard] | None = None,
) -> Shards:
    """Make the weights files of ``shards`` in ``directory``; without ``shards``, all of the plan.

    All of a plan includes the proofs of what it drops. Raises as ``execute.execute`` does, and
    ExecutionError when a file cannot be written.
    """
    with ExitStack() as stack:
        files = {
            shard.file: stack.enter_context(WeightsFile(directory / shard.file, shard.placements))
            for shard in (plan.shards if shards is None else shards)
        }
        beside = stack.enter_context(ThreadPoolExecutor(max(1, min(jobs, len(files)))))
        try:
            digests = [beside.submit(file.sha256) for file in files.values()]
            written = _execute(plan, source, files, jobs, progress, shards)
            records = tuple(
                FileRecord(name, file.size_bytes, digest.result(), file.header_sha256)
                for (name, file), digest in zip(files.items(), digests, strict=True)
            )
        except BaseException:
            for file in files.values():
                file.abandon()
            raise
    return Shards(written, records, {name: file.data_start for name, file in files.items()})


def _execute(
    plan: Plan,
    source: Source,
    files: Mapping[str, WeightsFile],
    jobs: int,
    progress: Progress,
    shards: Sequence[Shard] | None,
) -> dict[str, Written]:
    # Imported here because it takes as long as the digests of the source that run meanwhile.
    from converter.execute import execute

    places = {
        placement.name: (files[shard.file], placement.begin)
        for shard in (plan.shards if shards is None else shards)
        for placement in shard.placements
    }

    def write(name: str, begin: int, data: memoryview) -> None:
        if name in places:  # a binding may have targets in other files too
            file, start = places[name]
            file.write(start + begin, data)

    bindings = None
    if shards is not None:
        bindings = [b for b in plan.bindings if not places.keys().isdisjoint(b.targets)]
    written = execute(plan, source, write, jobs=jobs, progress=progress, bindings=bindings)
    return {name: made for name, made in written.items() if name in places}
