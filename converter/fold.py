"""Fold the numbers of names: ``layers.0.w, layers.1.w, layers.2.w`` → ``layers.{0..2}.w``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TypeAlias

from converter.finding import Finding

_NUMBER = re.compile(r"(?<![0-9])(0|[1-9][0-9]{0,17})(?![0-9])")
_ESCAPED = re.compile(r"[#\\]")
# Those after it are text. Honest names have fewer; a name has room for hundreds, and to fold names
# of hundreds would take hours.
_MOST_NUMBERS = 8

Numbers: TypeAlias = tuple[int, ...]
Texts: TypeAlias = tuple[str, ...]
Box: TypeAlias = tuple[Numbers, ...]


def skeleton(name: str) -> str:
    """Return ``name`` with ``#`` for its first numbers, but for those padded with zeros.

    Names of equal skeletons differ in nothing but these numbers: a ``#`` of the name is escaped.
    """
    return _NUMBER.sub("#", _ESCAPED.sub(r"\\\g<0>", name), count=_MOST_NUMBERS)


def split_numbers(name: str) -> list[str]:
    """Return the numbers that ``skeleton`` replaces, with the texts before, between and after."""
    return _NUMBER.split(name, _MOST_NUMBERS)


def numbers(name: str) -> Numbers:
    """Return the numbers that ``skeleton`` replaces."""
    return tuple(map(int, split_numbers(name)[1::2]))


def fold_names(names: Iterable[str]) -> list[str]:
    """Return patterns that stand for exactly these names, in order of first appearance.

    Several numbers fold together only where every combination of them is present.
    """
    groups: dict[str, tuple[Texts, set[Numbers]]] = {}
    for name in names:
        shape = skeleton(name)
        if shape not in groups:
            groups[shape] = (tuple(split_numbers(name)[::2]), set())
        groups[shape][1].add(numbers(name))
    return [_write(texts, box) for texts, tuples in groups.values() for box in cover(tuples)]


def few(patterns: Sequence[str], most: int) -> list[str]:
    """Return patterns; of more than ``most`` the first, and how many more there are."""
    left = len(patterns) - most
    return [*patterns[:most], f"and {left:,} more patterns"] if left > 0 else list(patterns)


def fold_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Join findings that differ in nothing but the tensor, and fold the names of those."""
    groups: dict[Finding, list[str]] = {}
    for finding in findings:
        tensors = groups.setdefault(replace(finding, tensor=None), [])
        if finding.tensor is not None:
            tensors.append(finding.tensor)
    return [
        replace(finding, tensor=", ".join(fold_names(tensors)) or None)
        for finding, tensors in groups.items()
    ]


def fold_numbers(values: Iterable[int]) -> str:
    """Return sorted numbers as runs: ``0..2,5``."""
    ordered = sorted(set(values))
    runs = [
        [value for _, value in run]
        for _, run in groupby(enumerate(ordered), lambda pair: pair[1] - pair[0])
    ]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)


def cover(tuples: set[Numbers]) -> list[Box]:
    """Return products of sorted numbers that together are exactly a set of equally long tuples."""
    if tuples == {()}:
        return [()]
    rests: dict[int, set[Numbers]] = {}
    for first, *rest in tuples:
        rests.setdefault(first, set()).add(tuple(rest))
    firsts: dict[tuple[Box, ...], list[int]] = {}
    for first in sorted(rests):
        firsts.setdefault(tuple(cover(rests[first])), []).append(first)
    return [(tuple(values), *box) for boxes, values in firsts.items() for box in boxes]


def _write(texts: Texts, box: Box) -> str:
    """Write sets of numbers between the texts that stand around them."""
    written = [texts[0]]
    for values, text in zip(box, texts[1:], strict=True):
        folded = fold_numbers(values)
        written += [folded if len(values) == 1 else f"{{{folded}}}", text]
    return "".join(written)
