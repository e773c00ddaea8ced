"""One conversion from start to end: a plan carried out, described, and published at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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
from converter.record import describe, source_records
from converter.shards import write_shards
from converter.source import Source
from converter.suspicions import suspicions
from converter.write import write_file

SourceDigests = Callable[[Source], tuple[FileRecord, ...]]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion made, and what it noticed about the values."""

    out: Path
    plan: Plan
    manifest: Manifest
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
) -> Conversion:
    """Write the canonical directory ``out``, complete or not at all.

    ``progress`` is told the bytes of each canonical tensor as it is written, and of all. Raises
    ValueRefusedError for values that are refused, SourceError when the source changes or ends
    early, ExecutionError when ``out`` cannot be written or exists without ``overwrite``.
    """
    begun = time.monotonic()
    with Staging(out, size_bytes=plan.total_bytes, overwrite=overwrite) as staging:
        manifest = fill(plan, source, staging.path, jobs=jobs, progress=progress)
        staging.publish()
    warnings = tuple(suspicions(manifest.tensors))
    return Conversion(out, plan, manifest, warnings, time.monotonic() - begun)


def fill(
    plan: Plan,
    source: Source,
    directory: Path,
    *,
    jobs: int,
    progress: Progress,
    digests: SourceDigests | None = None,
) -> Manifest:
    """Write everything that belongs in a canonical directory into one that exists and is empty.

    ``digests`` gives the records of the source's files, where they are known already. Raises as
    ``carry_out``.
    """
    with ThreadPoolExecutor(1) as beside:
        sources = beside.submit(digests or source_records, source)
        shards = write_shards(plan, source, directory, jobs=jobs, progress=progress)
        records = sources.result()
    source.check_unchanged()
    listed = (*shards.files, *_write_index(plan, directory))
    manifest = describe(
        plan, shards.written, sources=records, files=listed, data_starts=shards.data_starts
    )
    text = manifests.dump(manifest)
    _require_readable(text, directory)
    write_file(directory / MANIFEST_NAME, text)
    sums = {record.name: record.sha256 for record in listed} | {MANIFEST_NAME: sha256(text)}
    write_file(directory / SUMS_NAME, encode_sums(sums))
    return manifest


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
