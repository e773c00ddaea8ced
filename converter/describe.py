"""A checkpoint at a glance, from its header: names folded, sizes added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from converter.fold import fold_names, skeleton
from converter.source import Source, SourceFile
from converter.spec import Header, TensorSpec


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
    """What a checkpoint holds."""

    files: tuple[SourceFile, ...]
    metadata: Mapping[str, str]
    header: Header
    rows: tuple[Row, ...]

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


def describe(source: Source) -> Description:
    """Describe an open checkpoint; its values are not read."""
    return Description(source.files, source.metadata, source.header, _rows(source.header))


def _rows(header: Header) -> tuple[Row, ...]:
    groups: dict[tuple[str, TensorSpec], list[str]] = {}
    for name, spec in header.items():
        groups.setdefault((skeleton(name), spec), []).append(name)
    return tuple(
        Row(", ".join(fold_names(names)), spec, tuple(names)) for (_, spec), names in groups.items()
    )
