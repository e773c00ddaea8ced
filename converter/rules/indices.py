"""The values that indices take: all of those in their ranges, which may depend on one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from converter.errors import RuleError
from converter.rules.expression import Value
from converter.rules.rule_file import Range

# Several times the tensors of the largest checkpoints that there are.
MAX_VALUES = 1 << 19


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
    ranges: Mapping[str, Range], names: Sequence[str], values: Mapping[str, Value]
) -> Iterator[dict[str, Value]]:
    """Yield ``values`` with every choice of the indices ``names``, the last of them fastest."""
    if not names:
        yield dict(values)
        return
    first, *left = names
    for number in index_range(ranges[first], values):
        yield from index_values(ranges, left, {**values, first: number})
