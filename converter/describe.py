"""A checkpoint at a glance, from its header: names folded, sizes added up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from converter.describe_facts import Fact, facts_of
from converter.errors import UsageError
from converter.finding import Finding, closest
from converter.fold import fold_names, skeleton
from converter.source import Source, SourceFile
from converter.spec import Header, TensorSpec

if TYPE_CHECKING:
    from converter.describe_values import TensorValues
    from converter.manifest import Manifest

Order: TypeAlias = Literal["size", "name"]

_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class Row:
    """Tensors whose names differ in numbers only and whose specs are equal."""

    pattern: str
    spec: TensorSpec
    names: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Size of all of them in bytes."""
        return self.spec.nbytes * len(self.names)


@dataclass(frozen=True, slots=True)
class Description:
    """What a checkpoint holds, or those of its ``held`` tensors that were asked for.

    ``canonical`` is the manifest where the checkpoint is a canonical directory; ``values`` are
    those that were asked for, by name; ``findings`` are warnings.
    """

    files: tuple[SourceFile, ...]
    metadata: Mapping[str, str]
    header: Header
    rows: tuple[Row, ...]
    facts: tuple[Fact, ...]
    held: int
    canonical: Manifest | None = None
    values: Mapping[str, TensorValues] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def parameters(self) -> int:
        """Number of elements of all tensors."""
        return sum(spec.numel for spec in self.header.values())

    @property
    def nbytes(self) -> int:
        """Size of all data in bytes."""
        return sum(spec.nbytes for spec in self.header.values())

    @property
    def dtypes(self) -> Mapping[str, int]:
        """How many tensors there are of each dtype, the commonest first."""
        counts = Counter(spec.dtype for spec in self.header.values())
        return dict(counts.most_common())


def describe(
    source: Source, *, prefixes: Sequence[str] = (), order: Order | None = None
) -> Description:
    """Describe an open checkpoint; its values are not read.

    ``prefixes`` narrows it to the names that begin with one of them; ``order`` is by falling size,
    or by name with numbers as numbers, and else that of the data. Raises UsageError when no name
    begins with a prefix.
    """
    header = _narrowed(source.header, prefixes) if prefixes else source.header
    if order == "name":
        header = dict(sorted(header.items(), key=lambda item: _natural(item[0])))
    elif order == "size":
        header = dict(sorted(header.items(), key=lambda item: -item[1].nbytes))
    rows = rows_of(header)
    if order == "size":
        rows = tuple(sorted(rows, key=lambda row: -row.nbytes))
    facts = facts_of(header)
    return Description(source.files, source.metadata, header, rows, facts, len(source.header))


def rows_of(header: Header) -> tuple[Row, ...]:
    """Return a row for all names that differ in numbers only and have one spec."""
    groups: dict[tuple[str, TensorSpec], list[str]] = {}
    for name, spec in header.items():
        groups.setdefault((skeleton(name), spec), []).append(name)
    return tuple(
        Row(", ".join(fold_names(names)), spec, tuple(names)) for (_, spec), names in groups.items()
    )


def _narrowed(header: Header, prefixes: Sequence[str]) -> Header:
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in header):
            near = closest(prefix, dict.fromkeys(_as_deep(name, prefix) for name in header))
            raise UsageError(
                f"no name begins with {prefix!r}",
                got=f"{len(header):,} names"
                + (f", such as {next(iter(header))}" if header else ""),
                hint=f"did you mean {near!r}?" if near else None,
            )
    return {name: spec for name, spec in header.items() if name.startswith(tuple(prefixes))}


def _as_deep(name: str, prefix: str) -> str:
    """Return what a name begins with, to as many dots as a prefix has."""
    words = name.split(".")[: prefix.count(".") + (not prefix.endswith("."))]
    return ".".join(words) + ("." if prefix.endswith(".") else "")


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key by which 2 comes before 10; numbers of strangers have any number of digits."""
    parts = _DIGITS.split(name)
    return [
        (len(part.lstrip("0")), part.lstrip("0")) if number % 2 else (0, part)
        for number, part in enumerate(parts)
    ] + [(0, name)]
