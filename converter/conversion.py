"""One conversion from start to end: a plan carried out, described, and published at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from converter import manifest as manifests
from converter.canonical import INDEX_NAME, MANIFEST_NAME, SUMS_NAME, encode_index, encode_sums
from converter.digest import sha256
from converter.errors import ConverterError, ExecutionError
from converter.finding import Finding
from converter.layout import layouts
from converter.manifest import FileRecord, Manifest
from converter.plan import Plan
from converter.progress import Progress
from converter.publish import Staging
from converter.record import SourceDigests, describe, source_records
from converter.shards import Shards, write_shards
from converter.source import Source
from converter.suspicions import suspicions, underflow
from converter.write import write_file


@dataclass(frozen=True, slots=True)
class Maker:
    """Who reads the source and makes the weights files; by itself, threads of this process.

    ``begin`` is told every plan, source and directory that it will be asked for, and with how many
    workers, before ``write_shards`` and ``source_records`` are called for the first of them.
    """

    write_shards: Callable[..., Shards] = write_shards
    source_records: SourceDigests = source_records
    begin: Callable[[Plan, Source, Path, int], None] = lambda plan, source, directory, jobs: None


# Entered when all that can be checked beforehand holds, and left before anything is published.
Executor: TypeAlias = Callable[[], AbstractContextManager[Maker]]


def in_this_process() -> AbstractContextManager[Maker]:
    """Return who makes files where nobody else is asked to."""
    return nullcontext(Maker())


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion made, and what it noticed about the values."""

    out: Path
    plan: Plan
    manifest: Manifest
    manifest_sha256: str
    warnings: tuple[Finding, ...]
    seconds: float


def carry_out(
    plan: Plan,
    source: Source,
    out: Path,
    *,
    jobs: int,
    overwrite: bool = False,
    progress: Progress,
    executor: Executor | None = None,
    digests: SourceDigests | None = None,
) -> Conversion:
    """Write the canonical directory ``out``, complete or not at all.

    ``progress`` is told the bytes of canonical data as they are written, and of all; ``digests``
    is as for ``fill``. Raises ValueRefusedError for values that are refused, SourceError when the
    source changes or ends early, ExecutionError when ``out`` cannot be written or exists without
    ``overwrite``.
    """
    begun = time.monotonic()
    with Staging(out, size_bytes=plan.total_bytes, overwrite=overwrite) as staging:
        with (executor or in_this_process)() as maker:
            maker.begin(plan, source, staging.path, jobs)
            made = fill(
                plan,
                source,
                staging.path,
                jobs=jobs,
                progress=progress,
                maker=maker,
                digests=digests,
            )
        staging.publish()
    seconds = time.monotonic() - begun
    return Conversion(out, plan, made.manifest, made.manifest_sha256, made.warnings, seconds)


@dataclass(frozen=True, slots=True)
class Filled:
    """What was written into a canonical directory, and what was noticed about the values."""

    manifest: Manifest
    manifest_sha256: str
    warnings: tuple[Finding, ...]


def fill(
    plan: Plan,
    source: Source,
    directory: Path,
    *,
    jobs: int,
    progress: Progress,
    maker: Maker,
    digests: SourceDigests | None = None,
) -> Filled:
    """Write everything that belongs in a canonical directory into one that exists and is empty.

    ``digests`` gives the records of the source's files, where somebody else makes them. Raises as
    ``carry_out``.
    """
    with ThreadPoolExecutor(1) as beside:
        sources = beside.submit(digests or maker.source_records, source)
        shards = maker.write_shards(plan, source, directory, jobs=jobs, progress=progress)
        records = sources.result()
    source.check_unchanged()
    listed = (*shards.files, *_write_index(plan, directory))
    manifest = describe(
        plan, shards.written, sources=records, files=listed, data_starts=shards.data_starts
    )
    text = manifests.dump(manifest)
    _require_readable(text, directory)
    write_file(directory / MANIFEST_NAME, text)
    manifest_sha256 = sha256(text)
    sums = {record.name: record.sha256 for record in listed} | {MANIFEST_NAME: manifest_sha256}
    write_file(directory / SUMS_NAME, encode_sums(sums))
    flushed = {name: written.flushed for name, written in shards.written.items()}
    warnings = (*suspicions(manifest.tensors), *underflow(flushed, manifest.tensors))
    return Filled(manifest, manifest_sha256, warnings)


def _require_readable(text: bytes, directory: Path) -> None:
    """Raise ExecutionError for a manifest that no check and no runtime would accept."""
    try:
        layouts(manifests.load(text), directory)
    except ConverterError as error:
        finding = error.findings[0]
        raise ExecutionError(
            f"the manifest would not be accepted: {finding.what}",
            code="manifest",
            tensor=finding.tensor,
            expected=finding.expected,
            got=finding.got,
            hint="a number or name of the rules or the source is beyond what the format holds",
        ) from error


def _write_index(plan: Plan, directory: Path) -> tuple[FileRecord, ...]:
    if len(plan.shards) == 1:
        return ()
    text = encode_index({shard.file: shard.placements for shard in plan.shards})
    write_file(directory / INDEX_NAME, text)
    return (FileRecord(INDEX_NAME, len(text), sha256(text)),)
