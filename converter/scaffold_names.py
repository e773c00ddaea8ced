"""Names for what a scaffold finds: dims for sizes that repeat, an index for each range.

A dim that counts is named by the word before the index (``layers.3.`` → ``layers``); a size has no
name in a file, so it is ``d512`` until the author knows better.
"""

from __future__ import annotations

import itertools
import keyword
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from converter.fold import Numbers
from converter.scaffold_fold import Pattern, parts_before

_SMALLEST_DIM = 8  # smaller sizes are kernels, groups and the like, equal by chance
_LARGEST_FACTOR = 8
_LETTERS = "ijkmnpqrstuvwxyz"
_RESERVED = frozenset({*keyword.kwlist, "len", "sum", "prod", "min", "max"})


@dataclass(frozen=True, slots=True)
class Named:
    """Names for all that the patterns of a header need.

    ``dims`` and ``index`` are the sections of the rule file; ``letters`` has the index of a path,
    ``sizes`` the dim of a size.
    """

    dims: Mapping[str, int]
    index: Mapping[str, str]
    letters: Mapping[str, str]
    sizes: Mapping[int, str]

    def template(self, pattern: Pattern) -> str:
        """Return the names of a pattern as a rule writes them."""
        pieces = [pattern.texts[0]]
        for path, numbers, text in zip(
            pattern.paths, pattern.values, pattern.texts[1:], strict=True
        ):
            pieces += (f"{{{self._value(path, numbers)}}}", text)
        return "".join(pieces)

    def own_index(self, pattern: Pattern) -> dict[str, str]:
        """Return the ranges that the rule of a pattern must state itself."""
        own = {}
        for path, numbers in zip(pattern.paths, pattern.values, strict=True):
            letter = self.letters[path]
            if numbers[1] - numbers[0] > 1:
                own[letter] = str(len(numbers))
            elif not self._is_whole(letter, numbers):
                own[letter] = f"{numbers[0]}..{numbers[-1]}"
        return own

    def shape(self, pattern: Pattern) -> str:
        """Return the shape of a pattern over the dims."""
        return f"[{', '.join(self.sizes.get(size, str(size)) for size in pattern.shape)}]"

    def multiples(self, size: int) -> str:
        """Return what a size is a small multiple of, as ``4 * d512``, or nothing."""
        for factor in range(2, _LARGEST_FACTOR + 1):
            if size % factor == 0 and size // factor in self.sizes:
                return f"{factor} * {self.sizes[size // factor]}"
        return ""

    def _value(self, path: str, numbers: Numbers) -> str:
        letter, step = self.letters[path], numbers[1] - numbers[0]
        if step == 1:
            return letter
        return f"{step} * {letter}" if numbers[0] == 0 else f"{numbers[0]} + {step} * {letter}"

    def _is_whole(self, letter: str, numbers: Numbers) -> bool:
        declared = self.index.get(letter)
        bounds = f"{numbers[0]}..{numbers[-1]}"
        return declared == bounds or (
            numbers[0] == 0 and self.dims.get(declared or "") == len(numbers)
        )


def name_all(patterns: Sequence[Pattern]) -> Named:
    """Name the sizes and the indices of all patterns."""
    sizes = _repeated(patterns)
    whole = _whole_ranges(patterns)
    counts = _counts([path for path, numbers in whole.items() if numbers[0] == 0], sizes)
    letters = _letters(patterns, {*counts.values(), *sizes.values()})
    index = {
        letters[path]: counts.get(path) or f"{numbers[0]}..{numbers[-1]}"
        for path, numbers in whole.items()
    }
    dims = {name: len(whole[path]) for path, name in counts.items()}
    return Named({**dims, **{n: size for size, n in sizes.items()}}, index, letters, sizes)


def _repeated(patterns: Sequence[Pattern]) -> dict[int, str]:
    times = Counter(size for pattern in patterns for size in pattern.shape)
    repeated = sorted(size for size, n in times.items() if n > 1 and size >= _SMALLEST_DIM)
    return {size: f"d{size}" for size in repeated}


def _whole_ranges(patterns: Sequence[Pattern]) -> dict[str, Numbers]:
    """Return, by path, the range that holds for rules which state none of their own.

    It is the longest, if that starts at 0, or the only one.
    """
    ranges: dict[str, set[Numbers]] = {}
    for pattern in patterns:
        for path, numbers in zip(pattern.paths, pattern.values, strict=True):
            if numbers[1] - numbers[0] == 1:
                ranges.setdefault(path, set()).add(numbers)
    longest = {path: max(found, key=len) for path, found in ranges.items()}
    return {
        path: numbers
        for path, numbers in longest.items()
        if numbers[0] == 0 or len(ranges[path]) == 1
    }


def _counts(paths: Sequence[str], sizes: Mapping[int, str]) -> dict[str, str]:
    """Name the length of each range that starts at 0 by as few words as tell it from others."""
    taken = {*sizes.values(), *_RESERVED}
    spellings = {path: _spellings(path) for path in paths}
    names: dict[str, str] = {}
    for path, own in spellings.items():
        others = {name for other in paths if other != path for name in spellings[other]}
        free = (name for name in own if name not in others and name not in taken)
        numbered = (f"{own[0]}_{number}" for number in itertools.count(2))
        name = next(free, None) or next(n for n in numbered if n not in others and n not in taken)
        names[path] = name
        taken.add(name)
    return names


def _spellings(path: str) -> list[str]:
    """Return names for a list by the last word before its index, by the last two, and so on."""
    words = [re.sub(r"[^A-Za-z0-9_]", "_", part) for part in parts_before(path)] or ["items"]
    joined = ("_".join(words[first:]) for first in range(len(words) - 1, -1, -1))
    named = [name for name in joined if not name[0].isdigit() and name not in _RESERVED]
    # A dim of one letter could be taken for an index.
    return [name if len(name) > 1 else f"{name}_count" for name in named] or ["items"]


def _letters(patterns: Sequence[Pattern], taken: set[str]) -> dict[str, str]:
    free = _free_letters(taken)
    paths = dict.fromkeys(path for pattern in patterns for path in pattern.paths)
    return {path: next(free) for path in paths}


def _free_letters(taken: set[str]) -> Iterator[str]:
    number = 1
    while True:
        for letter in _LETTERS:
            name = letter if number == 1 else f"{letter}{number}"
            if name not in taken:
                yield name
        number += 1
