"""Explain the tensors of a canonical directory by what its manifest says, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from converter.errors import ConverterError
from converter.explain import Explanation, Place, Role, Stage, Trace, roles_of, stages_of
from converter.manifest import Manifest, StandInRecord, TensorRecord
from converter.spec import TensorSpec
from converter.steps.build import build


def explain_manifest(pattern: str, manifest: Manifest) -> Explanation:
    """Explain a name, or all that begin with what is before ``**``.

    Raises UsageError for a name that the manifest does not have.
    """
    book = _Book(manifest)
    more = manifest.out_of_scope
    beyond = f"; {more:,} more of the source were out of scope, and are not listed" if more else ""
    return Explanation(
        by="manifest",
        model=manifest.model.name,
        rules=manifest.rules.file,
        rules_sha256=manifest.rules.sha256,
        files=tuple(file.name for file in manifest.sources),
        roles=tuple(roles_of(pattern, book.names, book.roles, beyond=beyond)),
    )


class _Book:
    """Names of a manifest, and what they stand for."""

    def __init__(self, manifest: Manifest) -> None:
        self.aliases = manifest.aliases
        self.tensors = {record.name: record for record in manifest.tensors}
        self.dropped = {record.name: record for record in manifest.dropped}
        self.stand_ins = {record.name: record for record in manifest.stand_ins}
        self.fed: dict[str, TensorRecord] = {}
        self.units: dict[tuple[str, ...], list[TensorRecord]] = {}
        for record in manifest.tensors:
            if record.sources:
                self.units.setdefault(record.sources, []).append(record)
            self.fed |= dict.fromkeys(record.sources, record)
        self.traces: dict[tuple[str, ...], Trace] = {}

    @cached_property
    def absent(self) -> Mapping[str, StandInRecord]:
        filled = [item for item in self.stand_ins.values() if item.name in self.tensors]
        return {name: item for item in filled for name in item.sources}

    @property
    def names(self) -> Sequence[str]:
        return [*self.tensors, *self.aliases, *self.fed, *self.dropped, *self.absent]

    def roles(self, name: str) -> list[Role]:
        found = []
        if record := self.tensors.get(name):
            found.append(Role(name, "canonical", self.trace(record), record.spec))
        if of := self.aliases.get(name):
            target = self.tensors[of]
            found.append(Role(name, "alias", self.trace(target), target.spec, of))
        if record := self.fed.get(name):
            spec = dict(self.trace(record).sources)[name]
            found.append(Role(name, "source", self.trace(record), spec))
        if dropped := self.dropped.get(name):
            found.append(
                Role(
                    name,
                    "dropped",
                    spec=TensorSpec(dropped.dtype, dropped.shape),
                    because=dropped.because,
                    value=dropped.proven,
                )
            )
        if stand_in := self.absent.get(name):
            found.append(Role(name, "absent", self.trace(self.tensors[stand_in.name])))
        return found

    def trace(self, record: TensorRecord) -> Trace:
        """Return the unit of work that made a tensor; the same for all that it made."""
        stand_in = self.stand_ins.get(record.name)
        key = record.sources or (stand_in.sources if stand_in else ()) or ("", record.name)
        if key not in self.traces:
            self.traces[key] = self.made(record, stand_in)
        return self.traces[key]

    def made(self, record: TensorRecord, stand_in: StandInRecord | None) -> Trace:
        made = self.units.get(record.sources, [record])
        if stand_in is not None:
            alike = [item for item in self.stand_ins.values() if item.sources == stand_in.sources]
            made = [self.tensors[item.name] for item in alike if item.name in self.tensors]
        given = record.given if len(record.given) == len(record.sources) else None
        return Trace(
            sources=tuple(zip(record.sources, given or (None,) * len(record.sources), strict=True)),
            stages=_stages(record),
            targets=tuple(map(_place, made)),
            fill=stand_in.value if stand_in else None,
            absent=stand_in.sources if stand_in else (),
        )


def _place(record: TensorRecord) -> Place:
    return Place(record.name, record.spec, record.file, record.offset, record.sha256, record.stats)


def _stages(record: TensorRecord) -> tuple[Stage, ...]:
    """Return the steps with what comes out of them; of steps not known here, the words alone."""
    calls = [call for step in record.steps for call in step.items()]
    given = record.given if len(record.given) == len(record.sources) else None
    try:
        steps = [build(name, _parameters(values)) for name, values in calls]
    except ConverterError:
        return tuple(Stage(name, _parameters(values), None) for name, values in calls)
    return stages_of(steps, given)


def _parameters(values: object) -> dict[str, object]:
    return dict(values) if isinstance(values, Mapping) else {}
