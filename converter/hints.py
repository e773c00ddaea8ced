"""What an author or a user may have meant. Said in messages only; never acted on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from converter.finding import closest
from converter.fold import Numbers, fold_numbers, numbers, skeleton

_SAMPLE = 20


def option_hint(expected: Collection[str], scope: str, found: Collection[str]) -> str | None:
    """Say which prefix option would make the expected names fit a source that has none of them.

    ``scope`` is the prefix that the rule file puts before its names.
    """
    prefix = _common_prefix(expected, found)
    if prefix:
        return f"the names of the source begin with {prefix!r}: add --source-prefix {prefix}"
    bare = [name.removeprefix(scope) for name in expected]
    if scope and any(name in found for name in bare):
        return f"the names of the source are bare, without {scope!r}: add --scope ''"
    other = _common_prefix(bare, found)
    if scope and other:
        return f"the names of the source begin with {other!r}, not {scope!r}: add --scope {other}"
    return None


def _common_prefix(expected: Iterable[str], found: Collection[str]) -> str | None:
    """Return the text that, put before most expected names, makes names that are found."""
    sample = sorted(expected, key=len, reverse=True)[:_SAMPLE]
    prefixes = Counter(
        name[: -len(wanted)]
        for wanted in sample
        for name in found
        if name.endswith(wanted) and name != wanted
    )
    best = prefixes.most_common(1)
    return best[0][0] if best and best[0][1] * 2 > len(sample) else None


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Expected and unexpected names by their skeletons, to say how they differ."""

    expected: Mapping[str, set[Numbers]]
    unexpected: Mapping[str, set[Numbers]]

    @classmethod
    def of(cls, expected: Iterable[str], unexpected: Iterable[str]) -> Neighbours:
        """Group both sides by skeleton."""
        return cls(_by_skeleton(expected), _by_skeleton(unexpected))

    def of_missing(self, name: str) -> str | None:
        """Say what in the source may be meant by an expected name that is missing."""
        shape = skeleton(name)
        if shape in self.unexpected:
            return f"the source has the numbers {_numbers_apart(name, self.unexpected[shape])} here"
        near = closest(shape, self.unexpected)
        return f"the source has {near!r}, which no rule names" if near else None

    def of_unexpected(self, name: str) -> str | None:
        """Say what a name that no rule takes may have been meant as."""
        shape = skeleton(name)
        if shape in self.expected:
            return (
                f"the rules count {_numbers_apart(name, self.expected[shape])} here; "
                "set the dim if the model really has more"
            )
        near = closest(shape, self.expected)
        return f"the rules name {near!r}" if near else None


def _by_skeleton(names: Iterable[str]) -> dict[str, set[Numbers]]:
    groups: dict[str, set[Numbers]] = {}
    for name in names:
        groups.setdefault(skeleton(name), set()).add(numbers(name))
    return groups


def _numbers_apart(name: str, others: set[Numbers]) -> str:
    """Return the numbers that stand in ``others`` where those of ``name`` are not among them."""
    for place, number in enumerate(numbers(name)):
        there = {other[place] for other in others}
        if number not in there:
            return fold_numbers(there)
    return "of other combinations"
