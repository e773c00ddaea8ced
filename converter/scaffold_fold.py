"""Names of a header folded into what a rule can say: patterns over closed ranges, and a shape.

A number is an index where it is a whole part of a name (``layers.3.``) and others stand in its
place; within a part (``weight_ih_l0``) only where many do.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from converter.fold import Numbers, Texts, cover, fold_numbers, split_numbers
from converter.spec import Header, Shape

_FEWEST_WITHIN = 5  # values, for numbers within a part to be an index
_FEWEST_STRIDED = 3  # values with gaps of one size, to be a range of their own
_HOLE = "\0"  # stands for an index; no name has it
_SEPARATORS = (".", "/")

# Up to a number: all before it, with _HOLE for each number; and whether it is a whole part.
_Place: TypeAlias = tuple[str, bool]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Tensors of one shape whose names differ in indices only.

    ``values`` are what stands between ``texts``: each list of numbers goes up in steps of one size.
    Every combination of them is there. ``paths`` are what all names have before an index, by which
    it is known.
    """

    texts: Texts
    values: tuple[Numbers, ...]
    paths: tuple[str, ...]
    shape: Shape
    dtypes: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of tensors."""
        total = 1
        for numbers in self.values:
            total *= len(numbers)
        return total

    def __str__(self) -> str:
        """Return the names as ``layers.{0..5}.weight``."""
        shown = [f"{{{fold_numbers(numbers)}}}" for numbers in self.values]
        return "".join(itertools.chain(*zip(self.texts, [*shown, ""], strict=True)))


def fold_header(header: Header) -> list[Pattern]:
    """Return patterns that hold each tensor of ``header`` exactly once, in order of appearance."""
    split = {name: split_numbers(name) for name in header}
    indices = _indices(split.values())
    groups: dict[tuple[Texts, Shape], dict[Numbers, str]] = {}
    for name, spec in header.items():
        texts, numbers = _fixed(split[name], indices)
        groups.setdefault((texts, spec.shape), {})[numbers] = spec.dtype
    return [
        pattern
        for (texts, shape), members in groups.items()
        for pattern in _cover(texts, shape, members)
    ]


def parts_before(path: str) -> list[str]:
    """Return the parts of what stands before an index, without other indices."""
    return [part for part in re.split(r"[./\0]+", path) if part]


def _places(pieces: list[str]) -> Iterator[_Place]:
    before = ""
    for text, after in zip(pieces[0:-1:2], pieces[2::2], strict=True):
        before += text
        is_whole = (not before or before[-1] in _SEPARATORS) and after[:1] in ("", *_SEPARATORS)
        yield before, is_whole
        before += _HOLE


def _indices(names: Iterable[list[str]]) -> set[_Place]:
    """Return the places whose numbers are indices."""
    seen: dict[_Place, set[str]] = {}
    for pieces in names:
        for place, number in zip(_places(pieces), pieces[1::2], strict=True):
            seen.setdefault(place, set()).add(number)
    return {
        place for place, found in seen.items() if len(found) >= (2 if place[1] else _FEWEST_WITHIN)
    }


def _fixed(pieces: list[str], indices: set[_Place]) -> tuple[Texts, Numbers]:
    """Return the texts between the indices of a name, and their numbers."""
    texts, numbers = [pieces[0]], []
    for place, number, text in zip(_places(pieces), pieces[1::2], pieces[2::2], strict=True):
        if place in indices:
            numbers.append(int(number))
            texts.append(text)
        else:
            texts[-1] += number + text
    return tuple(texts), tuple(numbers)


def _cover(texts: Texts, shape: Shape, members: Mapping[Numbers, str]) -> Iterator[Pattern]:
    paths = tuple(_HOLE.join(texts[: place + 1]) for place in range(len(texts) - 1))
    for box in cover(set(members)):
        for values in itertools.product(*map(_ranges, box)):
            found = (members[numbers] for numbers in itertools.product(*values))
            dtypes = tuple(sorted(set(found)))
            yield _without_constants(Pattern(texts, values, paths, shape, dtypes))


def _ranges(values: Numbers) -> list[Numbers]:
    """Cut ascending numbers into as few pieces as can be, each with steps of one size."""
    step = values[1] - values[0] if len(values) >= _FEWEST_STRIDED else 1
    if all(after - before == step for before, after in itertools.pairwise(values)):
        return [values]
    pieces = [[values[0]]]
    for before, after in itertools.pairwise(values):
        if after == before + 1:
            pieces[-1].append(after)
        else:
            pieces.append([after])
    return [tuple(piece) for piece in pieces]


def _without_constants(pattern: Pattern) -> Pattern:
    """Write the indices of a single value into the texts."""
    texts, kept, paths = [pattern.texts[0]], [], []
    for numbers, path, text in zip(pattern.values, pattern.paths, pattern.texts[1:], strict=True):
        if len(numbers) == 1:
            texts[-1] += f"{numbers[0]}{text}"
        else:
            kept.append(numbers)
            paths.append(path)
            texts.append(text)
    return replace(pattern, texts=tuple(texts), values=tuple(kept), paths=tuple(paths))
