"""One conversion from start to end: a plan carried out, described, and published at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from converter import __version__
from converter import manifest as manifests
from converter.canonical import INDEX_NAME, MANIFEST_NAME, SUMS_NAME, encode_index, encode_sums
from converter.digest import sha256
from converter.errors import ConverterError, ExecutionError
from converter.execute import Written, execute
from converter.finding import Finding
from converter.layout import layouts
from converter.manifest import (
    DropRecord,
    FileRecord,
    Manifest,
    ModelRecord,
    RulesRecord,
    StandInRecord,
    TensorRecord,
    ToolRecord,
)
from converter.plan import Binding, Plan
from converter.progress import Progress
from converter.publish import Staging
from converter.source import Source
from converter.steps.step import step_parameters
from converter.values import suspicions
from converter.write import WeightsFile, write_file

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
    with ExitStack() as stack, ThreadPoolExecutor(1) as beside:
        files = {
            shard.file: stack.enter_context(WeightsFile(directory / shard.file, shard.placements))
            for shard in plan.shards
        }
        sources = beside.submit(digests or source_records, source)
        written = execute(plan, source, _writer(plan, files), jobs=jobs, progress=progress)
        records = sources.result()
        source.check_unchanged()
        weights = _weights_records(files, jobs)
    listed = (*weights, *_write_index(plan, directory))
    manifest = _describe(plan, written, records, listed, files)
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


def source_records(source: Source) -> tuple[FileRecord, ...]:
    """Return the name, size and digest of every file of a source; reads all of them."""
    return tuple(
        FileRecord(file.name, file.size_bytes, source.sha256(file)) for file in source.files
    )


def _weights_records(files: Mapping[str, WeightsFile], jobs: int) -> tuple[FileRecord, ...]:
    with ThreadPoolExecutor(jobs) as pool:
        digests = pool.map(WeightsFile.sha256, files.values())
        return tuple(
            FileRecord(name, file.size_bytes, digest, file.header_sha256)
            for (name, file), digest in zip(files.items(), digests, strict=True)
        )


def _writer(plan: Plan, files: Mapping[str, WeightsFile]) -> Callable[[str, memoryview], None]:
    places = {
        placement.name: (files[shard.file], placement.begin)
        for shard in plan.shards
        for placement in shard.placements
    }

    def write(name: str, data: memoryview) -> None:
        file, begin = places[name]
        file.write(begin, data)

    return write


def _write_index(plan: Plan, directory: Path) -> tuple[FileRecord, ...]:
    if len(plan.shards) == 1:
        return ()
    text = encode_index({shard.file: shard.placements for shard in plan.shards})
    write_file(directory / INDEX_NAME, text)
    return (FileRecord(INDEX_NAME, len(text), sha256(text)),)


def _describe(
    plan: Plan,
    written: Mapping[str, Written],
    sources: tuple[FileRecord, ...],
    files: tuple[FileRecord, ...],
    weights: Mapping[str, WeightsFile],
) -> Manifest:
    tensors = tuple(_tensor_records(plan, written, weights))
    return Manifest(
        tool=ToolRecord("checkpoint-converter", __version__, _torch_version()),
        model=_model_record(plan),
        rules=_rules_record(plan),
        sources=sources,
        files=files,
        tensors=tensors,
        aliases=dict(plan.aliases),
        dropped=tuple(_drop_records(plan)),
        stand_ins=tuple(StandInRecord(*stand_in) for stand_in in plan.standing_in),
        out_of_scope=plan.out_of_scope,
        totals=manifests.total(tensors),
        content_sha256=manifests.content_digest(tensors),
    )


def _torch_version() -> str:
    """Return torch's version without what it was built for, which changes no byte."""
    return str(torch.__version__).partition("+")[0]


def _tensor_records(
    plan: Plan, written: Mapping[str, Written], weights: Mapping[str, WeightsFile]
) -> list[TensorRecord]:
    made_by = {name: binding for binding in plan.bindings for name in binding.targets}
    steps = {id(binding): _step_records(binding) for binding in plan.bindings}
    return [
        TensorRecord(
            name=placement.name,
            file=shard.file,
            dtype=placement.spec.dtype,
            shape=placement.spec.shape,
            offset=weights[shard.file].data_start + placement.begin,
            size=placement.spec.nbytes,
            sha256=written[placement.name].sha256,
            pieces=written[placement.name].pieces,
            sources=made_by[placement.name].sources,
            steps=steps[id(made_by[placement.name])],
            stats=written[placement.name].stats,
        )
        for shard in plan.shards
        for placement in shard.placements
    ]


def _step_records(binding: Binding) -> tuple[Mapping[str, object], ...]:
    return tuple({step.name: step_parameters(step)} for step in binding.steps)


def _model_record(plan: Plan) -> ModelRecord:
    rule_file, settings = plan.rule_file, plan.settings
    return ModelRecord(
        name=rule_file.model,
        title=rule_file.title,
        origin=rule_file.origin,
        variant=settings.variant,
        dims=dict(settings.dims),
        conventions=dict(rule_file.conventions),
        audio=dict(settings.audio),
    )


def _rules_record(plan: Plan) -> RulesRecord:
    options = dict(plan.settings.options)
    if plan.dtype is not None:
        options["dtype"] = plan.dtype
    return RulesRecord(Path(plan.rule_file.name).name, plan.rule_file.sha256, options)


def _drop_records(plan: Plan) -> list[DropRecord]:
    return [
        DropRecord(dropped.name, dropped.because, _proven(dropped.expect, dropped.equals))
        for dropped in plan.dropped
    ]


def _proven(expect: str | None, equals: str | None) -> str | None:
    return f"equals {equals}" if equals else expect
