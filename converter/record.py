"""What a manifest says of a plan that was carried out, whether or not it was written down."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from converter import __version__
from converter import manifest as manifests
from converter.cores import available_cores
from converter.digest import GivenUp, never
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
from converter.signals import checked
from converter.source import Source, open_source
from converter.spec import TensorSpec
from converter.steps.step import step_parameters

if TYPE_CHECKING:
    from converter.target import Written

SourceDigests: TypeAlias = Callable[[Source], tuple[FileRecord, ...]]


def source_records(source: Source, given_up: GivenUp = never) -> tuple[FileRecord, ...]:
    """Return the name, size and digest of every file of a source; reads all, on all cores.

    Raises CancelledError soon after ``given_up`` returns True.
    """
    with ThreadPoolExecutor(available_cores()) as pool:
        digests = pool.map(functools.partial(source.sha256, given_up=given_up), source.files)
        return tuple(
            FileRecord(file.name, file.size_bytes, digest)
            for file, digest in zip(source.files, digests, strict=True)
        )


class Opening(NamedTuple):
    """A source that is opened beside other work.

    ``source`` waits for it, and raises as ``open_source``; ``records`` waits for its digests, and
    is None where nobody makes them.
    """

    source: Callable[[], Source]
    records: SourceDigests | None


@contextmanager
def opened_beside(path: str | os.PathLike[str], *, digested: bool) -> Iterator[Opening]:
    """Open a source beside what is done in the block, and begin with its digests if asked to.

    It is closed when the block ends; digests that nobody waited for are given up.
    """
    end = threading.Event()
    with checked(), ThreadPoolExecutor(2) as beside:
        opening = beside.submit(open_source, path)

        def digest() -> tuple[FileRecord, ...]:
            return source_records(opening.result(), end.is_set) if digested else ()

        records = beside.submit(digest)
        try:
            yield Opening(opening.result, (lambda _: records.result()) if digested else None)
        finally:
            end.set()
            wait([records])
            if opening.exception() is None:
                opening.result().close()


def describe(
    plan: Plan,
    written: Mapping[str, Written],
    *,
    sources: tuple[FileRecord, ...],
    files: tuple[FileRecord, ...],
    data_starts: Mapping[str, int],
) -> Manifest:
    """Return the manifest of ``plan``, of which ``written`` says what each tensor came out as.

    ``data_starts`` is where the data of each file begins, in bytes.
    """
    # Imported here because it takes long, and most commands describe nothing.
    from importlib.metadata import version

    tensors = tuple(_tensor_records(plan, written, data_starts))
    return Manifest(
        tool=ToolRecord("checkpoint-converter", __version__, version("numpy")),
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


def _tensor_records(
    plan: Plan, written: Mapping[str, Written], data_starts: Mapping[str, int]
) -> list[TensorRecord]:
    made_by = {name: binding for binding in plan.bindings for name in binding.targets}
    steps = {id(binding): _step_records(binding) for binding in plan.bindings}
    return [
        TensorRecord(
            name=placement.name,
            file=shard.file,
            dtype=placement.spec.dtype,
            shape=placement.spec.shape,
            offset=data_starts[shard.file] + placement.begin,
            size=placement.spec.nbytes,
            sha256=written[placement.name].sha256,
            pieces=written[placement.name].pieces,
            sources=made_by[placement.name].sources,
            source_specs=_specs_before(made_by[placement.name]),
            steps=steps[id(made_by[placement.name])],
            stats=written[placement.name].stats,
        )
        for shard in plan.shards
        for placement in shard.placements
    ]


def _specs_before(binding: Binding) -> tuple[TensorSpec, ...]:
    return binding.inputs if binding.steps else ()


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
        conventions=dict(settings.conventions),
        audio=dict(settings.audio),
    )


def _rules_record(plan: Plan) -> RulesRecord:
    options = dict(plan.settings.options)
    if plan.dtype is not None:
        options["dtype"] = plan.dtype
    return RulesRecord(Path(plan.rule_file.name).name, plan.rule_file.sha256, options)


def _drop_records(plan: Plan) -> list[DropRecord]:
    return [
        DropRecord(
            dropped.name,
            dropped.spec.dtype,
            dropped.spec.shape,
            dropped.because,
            _proven(dropped.expect, dropped.equals),
        )
        for dropped in plan.dropped
    ]


def _proven(expect: str | None, equals: str | None) -> str | None:
    return f"equals {equals}" if equals else expect
