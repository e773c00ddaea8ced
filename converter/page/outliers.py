"""Tensors whose statistics stand out from those of the same kind in the other layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from converter.manifest import TensorRecord
from converter.page.stacks import Stack

FACTOR = 4.0
_FEWEST_LAYERS = 4
_FEWEST_VALUES = 16


@dataclass(frozen=True, slots=True)
class Outlier:
    """A tensor and what is unusual about it, as a fact; ``weight`` orders them, largest first."""

    name: str
    what: str
    weight: float


def outliers_of(stacks: Iterable[Stack], tensors: Iterable[TensorRecord]) -> list[Outlier]:
    """Return the tensors that stand out, the most unusual first.

    Those are tensors with values that are not finite, those of many values that are all equal
    while others of their kind are not, and those whose standard deviation is ``FACTOR`` times
    above or below the median of their kind.
    """
    found = [*_nonfinite(tensors)]
    for stack in stacks:
        by_kind: dict[str, list[TensorRecord]] = {}
        for (kind, _), tensor in stack.tensors.items():
            by_kind.setdefault(kind, []).append(tensor)
        for alike in by_kind.values():
            found += _of_kind(alike)
    return sorted(found, key=lambda outlier: (-outlier.weight, outlier.name))


def _nonfinite(tensors: Iterable[TensorRecord]) -> Iterator[Outlier]:
    for tensor in tensors:
        if tensor.stats and tensor.stats.nonfinite:
            what = f"{tensor.stats.nonfinite:,} of {tensor.spec.numel:,} values are not finite"
            yield Outlier(tensor.name, what, math.inf)


def _of_kind(tensors: list[TensorRecord]) -> Iterator[Outlier]:
    stds = {t.name: t.stats.std for t in tensors if t.stats and t.spec.numel >= _FEWEST_VALUES}
    varied = [std for std in stds.values() if std > 0]
    if len(stds) < _FEWEST_LAYERS or len(varied) * 2 <= len(stds):
        return
    usual = median(varied)
    for name, std in stds.items():
        if std <= 0:
            yield Outlier(name, "all values are equal; in other layers they are not", 1e9)
            continue
        ratio = max(std, usual) / min(std, usual)
        if ratio >= FACTOR:
            times = f"{ratio:.3g}" if std > usual else f"1/{ratio:.3g}"
            what = f"std {std:.3g} is {times} of the median of its kind, {usual:.3g}"
            yield Outlier(name, what, math.log2(ratio))
