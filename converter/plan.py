"""What a conversion will do: every name, shape, dtype and byte offset, before a byte is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from converter.canonical import Placement, arrange, partition, shard_name
from converter.rules.rule_file import RuleFile, StandIn
from converter.rules.settings import Settings
from converter.spec import TensorSpec
from converter.steps.step import Specs, Step


class Binding(NamedTuple):
    """One unit of work: its sources, steps and targets, all with their specs.

    A binding with a ``stand_in`` has no sources; its targets are filled. A tuple, since plans have
    hundreds of thousands: a frozen dataclass of so many fields takes three times the time to make.
    """

    line: int
    sources: tuple[str, ...]
    steps: tuple[Step, ...]
    targets: tuple[str, ...]
    inputs: Specs
    outputs: Specs
    stand_in: StandIn | None = None
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """A source tensor that is left out, why, and what its value is to be shown to be."""

    name: str
    spec: TensorSpec
    because: str
    expect: str | None
    equals: str | None
    line: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One output file and where its tensors lie in it."""

    file: str
    placements: tuple[Placement, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that a conversion will do. Coverage is complete, or there is no plan."""

    rule_file: RuleFile
    settings: Settings
    bindings: tuple[Binding, ...]
    dropped: tuple[Dropped, ...]
    aliases: Mapping[str, str]
    allow_nan: frozenset[str]
    out_of_scope: int
    shards: tuple[Shard, ...]
    dtype: str | None

    @cached_property
    def targets(self) -> dict[str, TensorSpec]:
        """All canonical tensors that are stored, in execution order."""
        return {
            name: spec
            for binding in self.bindings
            for name, spec in zip(binding.targets, binding.outputs, strict=True)
        }

    @cached_property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The specs of all canonical tensors that are stored, in execution order."""
        return tuple([spec for binding in self.bindings for spec in binding.outputs])

    @property
    def used(self) -> int:
        """Number of source tensors that go into canonical ones."""
        return sum(len(binding.sources) for binding in self.bindings)

    @property
    def claimed(self) -> Iterator[str]:
        """All source tensors that this model accounts for: those used, and those dropped."""
        for binding in self.bindings:
            yield from binding.sources
        yield from (dropped.name for dropped in self.dropped)

    @property
    def standing_in(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Targets whose sources are all absent: name, what fills it, the absent names."""
        for binding in self.bindings:
            if binding.stand_in is not None:
                for name in binding.targets:
                    yield name, binding.stand_in.fill, binding.absent

    @cached_property
    def total_bytes(self) -> int:
        """Size of all canonical data in bytes."""
        return sum(spec.nbytes for spec in self.specs)


def shards_of(bindings: Iterable[Binding], max_shard_bytes: int | None) -> tuple[Shard, ...]:
    """Lay the targets of ``bindings`` out in files of at most that much data; None: in one."""
    targets = (
        pair for binding in bindings for pair in zip(binding.targets, binding.outputs, strict=True)
    )
    parts = partition(targets, max_shard_bytes)
    return tuple(
        Shard(shard_name(number, len(parts)), arrange(part))
        for number, part in enumerate(parts, start=1)
    )
