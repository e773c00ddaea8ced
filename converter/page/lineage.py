"""What became of what: from source names through steps to canonical names, numbers folded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from converter.fold import few, fold_names, skeleton
from converter.manifest import Manifest, TensorRecord
from converter.spec import TensorSpec
from converter.steps.step import call_text

How = Literal["renamed", "steps", "stand-in", "dropped"]
_Step: TypeAlias = Mapping[str, object]

_MOST_PATTERNS = 3
_WORTH_LEAVING_OUT = 5


@dataclass(frozen=True, slots=True)
class Flow:
    """Units of work that are alike but for numbers: ``count`` of them.

    ``sources`` and ``targets`` are folded names, one for each place, with their shapes where steps
    may change these and all have the same; ``steps`` are texts; ``note`` says why something was
    dropped, or what stands in. ``size`` is bytes of canonical tensors.
    """

    how: How
    sources: tuple[str, ...]
    steps: tuple[str, ...]
    targets: tuple[str, ...]
    aliases: tuple[str, ...]
    count: int
    size: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Source tensors that were dropped for one reason, with what their values were proven to be."""

    sources: tuple[str, ...]
    because: str
    proven: str
    count: int


@dataclass(frozen=True, slots=True)
class _Unit:
    """One unit of work: the canonical tensors that were made from the same sources."""

    tensors: tuple[TensorRecord, ...]
    sources: tuple[str, ...]
    fill: str


def flows_of(manifest: Manifest, *, prefix: str = "") -> list[Flow]:
    """Return what was made, in the order of the canonical tensors, then what was dropped.

    ``prefix`` is left out before the names of sources.
    """
    aliases: dict[str, list[str]] = {}
    for name, of in manifest.aliases.items():
        aliases.setdefault(of, []).append(name)
    groups: dict[tuple[object, ...], list[_Unit]] = {}
    for unit in _units(manifest, prefix):
        alike = (
            tuple(map(skeleton, unit.sources)),
            tuple(skeleton(tensor.name) for tensor in unit.tensors),
            json.dumps(unit.tensors[0].steps),
            unit.fill,
        )
        groups.setdefault(alike, []).append(unit)
    made = [_flow(units, aliases) for units in groups.values()]
    dropped = [
        Flow("dropped", group.sources, (), (), (), group.count, 0, group.because)
        for group in dropped_of(manifest, prefix=prefix)
    ]
    return [*made, *dropped]


def dropped_of(manifest: Manifest, *, prefix: str = "") -> list[Dropped]:
    """Return what was dropped, names folded, in order of first appearance."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for drop in manifest.dropped:
        alike = (skeleton(drop.name), drop.because, drop.proven or "")
        groups.setdefault(alike, []).append(drop.name.removeprefix(prefix))
    return [
        Dropped(tuple(few(fold_names(names), _MOST_PATTERNS)), because, proven, len(names))
        for (_, because, proven), names in groups.items()
    ]


def common_prefix(manifest: Manifest) -> str:
    """Return how the names of all sources begin, up to a dot; nothing where that is short."""
    names = [
        *(source for tensor in manifest.tensors for source in tensor.sources),
        *(source for record in manifest.stand_ins for source in record.sources),
        *(drop.name for drop in manifest.dropped),
    ]
    first, last = min(names, default=""), max(names, default="")
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    prefix, dot, _ = "".join(letter for letter, _ in alike).rpartition(".")
    return prefix + dot if len(prefix) >= _WORTH_LEAVING_OUT and len(names) > 1 else ""


def step_text(step: _Step) -> str:
    """Return a step as a rule file has it: ``split {dim: 0, sizes: [512, 512]}``."""
    for name, values in step.items():
        return call_text(name, values if isinstance(values, Mapping) else {})
    return ""


def lane_of(name: str) -> str:
    """Return the part of the model that a folded canonical name belongs to: its first word."""
    return name.partition(".")[0].partition(" ")[0]


def _units(manifest: Manifest, prefix: str) -> list[_Unit]:
    stand_ins = {record.name: record for record in manifest.stand_ins}
    grouped: dict[tuple[object, ...], list[TensorRecord]] = {}
    for tensor in manifest.tensors:
        alone = () if tensor.sources else (tensor.name,)
        key = (tensor.sources, json.dumps(tensor.steps), tensor.name in stand_ins, *alone)
        grouped.setdefault(key, []).append(tensor)
    units = []
    for tensors in grouped.values():
        first = stand_ins.get(tensors[0].name)
        sources = tensors[0].sources if first is None else (*tensors[0].sources, *first.sources)
        bare = tuple(name.removeprefix(prefix) for name in sources)
        units.append(_Unit(tuple(tensors), bare, "" if first is None else first.value))
    return units


def _flow(units: Sequence[_Unit], aliases: Mapping[str, Sequence[str]]) -> Flow:
    first = units[0]
    names = [[tensor.name for tensor in unit.tensors] for unit in units]
    how: How = "steps" if first.tensors[0].steps else "renamed"
    sources = [unit.tensors[0].source_specs for unit in units] if how == "steps" else []
    targets = [[tensor.spec for tensor in unit.tensors] for unit in units] if sources else []
    return Flow(
        how="stand-in" if first.fill else how,
        sources=_folded([unit.sources for unit in units], sources),
        steps=tuple(step_text(step) for step in first.tensors[0].steps),
        targets=_folded(names, targets),
        aliases=tuple(
            few(
                fold_names(a for row in names for name in row for a in aliases.get(name, ())),
                _MOST_PATTERNS,
            )
        ),
        count=len(units),
        size=sum(tensor.size for unit in units for tensor in unit.tensors),
        note=f"filled with {first.fill}" if first.fill else "",
    )


def _folded(
    rows: Iterable[Sequence[str]], specs: Sequence[Sequence[TensorSpec]]
) -> tuple[str, ...]:
    """Fold the names at each place of the rows, and add the shape that all there have."""
    folded = [
        ", ".join(few(fold_names(names), _MOST_PATTERNS)) for names in zip(*rows, strict=True)
    ]
    places = list(zip(*specs, strict=False))
    if len(places) != len(folded):
        return tuple(folded)
    shapes = [{spec.shape for spec in place} for place in places]
    return tuple(
        f"{name} {list(*shape)}" if len(shape) == 1 else name
        for name, shape in zip(folded, shapes, strict=True)
    )
