"""Output files, made from a plan: written, digested and on disk.

One file is a unit of work of its own: whoever makes it, wherever, makes the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from converter.canonical import METADATA
from converter.manifest import FileRecord
from converter.plan import Plan
from converter.progress import Progress
from converter.source import Source
from converter.target import Written
from converter.write import WeightsFile
from converter.write_blocks import BlockMemory


@dataclass(frozen=True, slots=True)
class Shards:
    """A plan's weights files, once they are on disk.

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
    metadata: Mapping[str, str] = METADATA,
) -> Shards:
    """Make the weights files of ``plan`` in ``directory``, and prove what it says of what it drops.

    ``metadata`` goes into their headers. Raises as ``execute.execute`` does, and ExecutionError
    when a file cannot be written.
    """
    with ExitStack() as stack:
        memory = stack.enter_context(BlockMemory(max(1, min(jobs, len(plan.shards)))))
        files = {
            shard.file: stack.enter_context(
                WeightsFile(directory / shard.file, shard.placements, memory, metadata)
            )
            for shard in plan.shards
        }
        written = _execute(plan, source, files, memory, jobs=jobs, progress=progress)
        records = tuple(
            FileRecord(name, file.size_bytes, file.sha256(), file.header_sha256)
            for name, file in files.items()
        )
    return Shards(written, records, {name: file.data_start for name, file in files.items()})


def _execute(
    plan: Plan,
    source: Source,
    files: Mapping[str, WeightsFile],
    memory: BlockMemory,
    *,
    jobs: int,
    progress: Progress,
) -> dict[str, Written]:
    # Imported here because it takes as long as the digests of the source that run meanwhile.
    from converter.execute import execute

    places = {
        placement.name: (files[shard.file], placement.begin)
        for shard in plan.shards
        for placement in shard.placements
    }

    def write(name: str, begin: int, data: memoryview) -> None:
        if name in places:  # a binding may have targets in other files too
            file, start = places[name]
            file.write(start + begin, data)

    written = execute(plan, source, write, jobs=jobs, progress=progress, at_work=memory.work)
    return {name: made for name, made in written.items() if name in places}


def parts_of(plan: Plan) -> Iterator[Plan]:
    """Yield plans to be carried out one by one, anywhere: one of all proofs, then one a file.

    Each holds no more than it needs, and none of what only planning needs, so that it is small
    and can be pickled. What goes into two files is made for both.
    """
    empty = replace(
        plan,
        rule_file=replace(
            plan.rule_file,
            derived={},
            require=(),
            audio={},
            rules=(),
            aliases=(),
            drops=(),
            allow_nan=(),
        ),
        bindings=(),
        dropped=(),
        aliases={},
        shards=(),
    )
    proofs = tuple(dropped for dropped in plan.dropped if dropped.expect)
    if proofs:
        yield replace(empty, dropped=proofs, allow_nan=frozenset())
    numbers = {name: n for n, binding in enumerate(plan.bindings) for name in binding.targets}
    for shard in plan.shards:
        made = sorted({numbers[placement.name] for placement in shard.placements})
        bindings = tuple(plan.bindings[number] for number in made)
        allowed = plan.allow_nan.intersection(name for b in bindings for name in b.targets)
        yield replace(empty, bindings=bindings, shards=(shard,), allow_nan=allowed)
