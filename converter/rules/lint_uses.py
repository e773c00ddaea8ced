"""Which names each part of a rule file mentions, and which of its indices that repeats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from converter.rules.indices import with_bounds
from converter.rules.rule_file import Alias, Allowed, Drop, Repeat, Requirement, Rule, RuleFile

Part: TypeAlias = "Rule | Drop | Alias | Allowed | Requirement"


@dataclass(frozen=True, slots=True)
class Use:
    """One part of a rule file, what it is repeated over, and the names in its own text."""

    part: Part
    repeat: Repeat
    names: frozenset[str]

    @property
    def mentioned(self) -> frozenset[str]:
        """The names in its text, its condition included."""
        when = self.repeat.when
        return self.names if when is None else self.names | when.names

    @property
    def indices(self) -> frozenset[str]:
        """The indices that are mentioned, and those that the ranges of these mention."""
        return with_bounds(self.repeat.ranges, self.mentioned)


def uses(rule_file: RuleFile) -> Iterator[Use]:
    """Yield a use for every rule, drop, alias, ``allow_nan`` and requirement."""
    for rule in rule_file.rules:
        names = joined(
            *(template.names for template in rule.sources),
            *(target.name.names for target in rule.targets),
            *(length.names for target in rule.targets for length in target.shape),
            *(item.names for call in rule.steps for item in call.expressions),
        )
        yield Use(rule, rule.repeat, names)
    for drop in rule_file.drops:
        parts = [part.names for part in (drop.equals, drop.count) if part is not None]
        names = joined(*(template.names for template in drop.names), *parts)
        yield Use(drop, drop.repeat, names)
    for alias in rule_file.aliases:
        yield Use(alias, alias.repeat, alias.name.names | alias.of.names)
    for allowed in rule_file.allow_nan:
        yield Use(allowed, allowed.repeat, allowed.name.names)
    for condition in rule_file.require:
        yield Use(condition, Repeat(condition.ranges, {}), condition.that.names)


def joined(*names: frozenset[str]) -> frozenset[str]:
    """Return all names of several sets."""
    return frozenset().union(*names)
