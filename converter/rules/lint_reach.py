"""Rules, drops and aliases that nothing can bring into force, and conditions that say nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, product

from converter.errors import PlanError, RuleError, UsageError
from converter.finding import Finding
from converter.manifest import Dim
from converter.rules.expand import Expansion, expand
from converter.rules.expression import Expression
from converter.rules.indices import Allowance
from converter.rules.lint_uses import Use, joined, uses
from converter.rules.rule_file import Alias, Drop, Rule, RuleFile
from converter.rules.settings import Settings, resolve

_MOST_TRIED = 256  # choices of dims for one part: one that takes more is left in peace
_SMALL = (0, 1, 2)


class Force:
    """Notes which parts of a rule file are in force under each combination of its variants.

    A part that a dim switches on is no fault. Nearly every range can be made to hold a value, so a
    range is at fault when it is empty although no dim that it mentions is zero.
    """

    def __init__(self, rule_file: RuleFile) -> None:
        self.rule_file = rule_file
        self.seen: list[Settings] = []
        self.counted: set[int] = set()

    def note(self, settings: Settings, expansion: Expansion) -> None:
        """Note what is in force under ``settings``; the expansion is not kept."""
        self.seen.append(settings)
        self.counted.update(id(part) for part in _counting(expansion))

    def lacking(self, allowance: Allowance) -> Iterator[Finding]:
        """Yield a finding for every part that nothing brings into force. Raises EndlessError."""
        for use in uses(self.rule_file) if self.seen else ():
            part, when = use.part, use.repeat.when
            if not isinstance(part, Rule | Drop | Alias) or id(part) in self.counted:
                continue
            if _has_empty_range(self.rule_file, use, self.seen, allowance):
                ranges = (use.repeat.ranges[name] for name in sorted(use.indices))
                got = ", ".join(f"{bounds.first.text}..{bounds.last.text}" for bounds in ranges)
                yield _finding(self.rule_file, part, "its indices have no values", got)
            elif when is not None and not _can_count(self.rule_file, use, self.seen[0], allowance):
                yield _finding(self.rule_file, part, "its condition never holds", when.text)


def idle_conditions(rule_file: RuleFile) -> Iterator[Finding]:
    """Yield a finding for every requirement and ``when`` that mentions nothing."""
    conditions = [(item.line, item.that) for item in rule_file.require]
    conditions += [
        (use.part.line, use.repeat.when) for use in uses(rule_file) if use.repeat.when is not None
    ]
    for line, condition in conditions:
        if not condition.names:
            yield Finding(
                "idle-condition",
                "a condition that is the same for all dims",
                rule_file.where(line),
                expected="a condition on dims, derived values or indices",
                got=condition.text,
                hint="name what it depends on, or remove it",
            )


def _counting(expansion: Expansion) -> Iterator[Rule | Drop | Alias]:
    yield from (unit.rule for unit in expansion.units)
    yield from (dropped.drop for dropped in expansion.drops)
    yield from (named.alias for named in expansion.aliases)


def _finding(rule_file: RuleFile, part: Rule | Drop | Alias, why: str, got: str) -> Finding:
    kind = type(part).__name__.lower()
    return Finding(
        "unreachable",
        f"the {kind} is never in force: {why}",
        rule_file.where(part.line),
        expected=f"a variant, or dims, for which the {kind} counts",
        got=got,
        hint="correct its when or its index, or remove it",
    )


def _counts(
    rule_file: RuleFile, part: Rule | Drop | Alias, settings: Settings, allowance: Allowance
) -> bool:
    """Whether a part, taken alone, does anything; or would, but for a fault of its own."""
    alone = replace(
        rule_file,
        rules=(part,) if isinstance(part, Rule) else (),
        drops=(part,) if isinstance(part, Drop) else (),
        aliases=(part,) if isinstance(part, Alias) else (),
        allow_nan=(),
    )
    expansion = expand(alone, settings, allowance)
    return bool(expansion.findings) or any(True for _ in _counting(expansion))


def _has_empty_range(
    rule_file: RuleFile, use: Use, seen: Sequence[Settings], allowance: Allowance
) -> bool:
    part = use.part
    assert isinstance(part, Rule | Drop | Alias)
    if not use.indices:
        return False
    always = replace(part, repeat=replace(use.repeat, when=None))
    mentioned = joined(*(use.repeat.ranges[name].names for name in use.indices))
    for settings in seen:
        if any(_holds_zero(settings.dims[name]) for name in mentioned & {*settings.dims}):
            return False
    return not any(_counts(rule_file, always, settings, allowance) for settings in seen)


def _holds_zero(value: Dim) -> bool:
    if isinstance(value, list):
        return not value or any(map(_holds_zero, value))
    return value == 0


def _can_count(rule_file: RuleFile, use: Use, settings: Settings, allowance: Allowance) -> bool:
    """Whether other dims bring a part into force, as far as a search among likely ones shows."""
    part = use.part
    assert isinstance(part, Rule | Drop | Alias)
    mentioned, texts = _depends(use)
    names = [name for name in rule_file.dims if name in mentioned]
    if len(names) < len(mentioned) or any(isinstance(settings.dims[n], list) for n in names):
        return True  # by way of a list or of a derived value: who knows
    numbers = {int(digits) for text in texts for digits in re.findall(r"[0-9]+", text)}
    near = {number + by for number in numbers for by in (-1, 0, 1)} | {*_SMALL}
    likely = sorted(number for number in near if number >= 0)
    tried = product(*([settings.dims[name], *likely] for name in names))
    free = replace(rule_file, require=())  # other dims might fulfil what these break
    for values in islice(tried, _MOST_TRIED):
        dims: dict[str, Dim] = dict(zip(names, values, strict=True))
        try:
            chosen = resolve(free, variant=settings.variant, dims=dims, allowance=allowance)
        except (RuleError, PlanError, UsageError):
            continue
        if _counts(rule_file, part, chosen, allowance):
            return True
    return next(tried, None) is not None


def _depends(use: Use) -> tuple[frozenset[str], list[str]]:
    """Return the names that decide whether a part counts, and the texts by which they do."""
    found: list[Expression] = [] if use.repeat.when is None else [use.repeat.when]
    for index in use.indices:
        found += (use.repeat.ranges[index].first, use.repeat.ranges[index].last)
    names = joined(*(item.names for item in found)) - use.indices
    return names, [item.text for item in found]
