"""The values that indices take: all of those in their ranges, which may depend on one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from converter.errors import RuleError
from converter.rules.expression import Value
from converter.rules.rule_file import Range

# Several times the tensors of the largest checkpoints that there are.
MAX_VALUES = 1 << 19
# A few seconds; no shipped rule file takes a thirtieth of it.
MAX_WORK = 1 << 23
_VALUES_COPIED = 8  # in the time of one operation


class EndlessError(Exception):
    """Rules that are to be repeated more often than any checkpoint has tensors."""


class Allowance:
    """How much more may be written out: there is an end to it, whatever the rules and the dims."""

    def __init__(self, work: int | None = None) -> None:
        self.names = MAX_VALUES
        self.work = MAX_WORK if work is None else work

    def spend(self, work: int, names: int = 0) -> None:
        """Take off a number of operations and of names. Raises EndlessError at the end."""
        self.names -= names
        self.work -= work
        if self.names < 0 or self.work < 0:
            raise EndlessError

    def spend_on_copy(self, values: Mapping[str, object]) -> None:
        """Take off what a copy of some values takes."""
        self.spend(1 + len(values) // _VALUES_COPIED)


def index_range(bounds: Range, values: Mapping[str, Value]) -> range:
    """Return the integers of a range, both ends included; raises RuleError where it stands."""
    try:
        first, last = bounds.first.evaluate(values), bounds.last.evaluate(values)
    except RuleError as error:
        raise RuleError.of([replace(f, where=bounds.where) for f in error.findings]) from error
    if last - first >= MAX_VALUES:
        raise RuleError(
            "an index has too many values",
            code="range",
            where=bounds.where,
            expected=f"at most {MAX_VALUES:,}",
            got=f"{first}..{last}",
            hint="look for a dim that is too large",
        )
    return range(first, last + 1)


def with_bounds(ranges: Mapping[str, Range], mentioned: frozenset[str]) -> frozenset[str]:
    """Return the indices among ``mentioned``, and those that their ranges mention in turn."""
    needed = mentioned & ranges.keys()
    while True:
        bounds = {name for index in needed for name in ranges[index].names & ranges.keys()}
        if bounds <= needed:
            return needed
        needed |= bounds


def index_values(
    ranges: Mapping[str, Range],
    names: Sequence[str],
    values: Mapping[str, Value],
    allowance: Allowance,
) -> Iterator[dict[str, Value]]:
    """Yield ``values`` with every choice of the indices ``names``, the last of them fastest."""
    if not names:
        yield dict(values)
        return
    first, *left = names
    bounds = ranges[first]
    allowance.spend(bounds.first.weight + bounds.last.weight)
    for number in index_range(bounds, values):
        allowance.spend_on_copy(values)
        chosen = {**values, first: number}
        if left:
            yield from index_values(ranges, left, chosen, allowance)
        else:
            yield chosen
