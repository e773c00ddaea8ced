"""What can be known from a rule file alone, for its own dims or for others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from converter.errors import PlanError, RuleError
from converter.finding import Finding
from converter.rules.expand import Expansion, expand
from converter.rules.rule_file import RuleFile
from converter.rules.settings import Settings


def lint(rule_file: RuleFile, settings: Settings) -> tuple[Finding, ...]:
    """Return what is wrong with a rule file by itself, under these settings."""
    return _all_findings(rule_file, expand(rule_file, settings))


def expand_checked(rule_file: RuleFile, settings: Settings) -> Expansion:
    """Write out a rule file that has no fault.

    Raises RuleError with every finding; PlanError when the dims were set by the caller, since
    the fault may be theirs.
    """
    expansion = expand(rule_file, settings)
    findings = _all_findings(rule_file, expansion)
    if findings:
        raise (RuleError if settings.own_dims else PlanError).of(findings)
    return expansion


def _all_findings(rule_file: RuleFile, expansion: Expansion) -> tuple[Finding, ...]:
    return (
        *expansion.findings,
        *_sources_used_twice(rule_file, expansion),
        *_targets_made_twice(rule_file, expansion),
        *_names_of_nothing(rule_file, expansion),
    )


def _sources_used_twice(rule_file: RuleFile, expansion: Expansion) -> Iterator[Finding]:
    claims = [(name, unit.rule.line) for unit in expansion.units for name in unit.sources]
    claims += [(drop.name, drop.drop.line) for drop in expansion.drops if drop.count is None]
    return _collisions(rule_file, claims, "one source tensor is used twice")


def _targets_made_twice(rule_file: RuleFile, expansion: Expansion) -> Iterator[Finding]:
    claims = [(name, unit.rule.line) for unit in expansion.units for name, _ in unit.targets]
    claims += [(alias.name, alias.alias.line) for alias in expansion.aliases]
    return _collisions(rule_file, claims, "two sources for one target")


def _collisions(
    rule_file: RuleFile, claims: Iterable[tuple[str, int]], what: str
) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for name, line in claims:
        if name in first:
            yield Finding(
                "collision",
                what,
                rule_file.where(line),
                tensor=name,
                expected="each name exactly once",
                got=f"also at {rule_file.where(first[name])}",
                hint="give each its own name, or narrow the index of one of the rules",
            )
        first.setdefault(name, line)


def _names_of_nothing(rule_file: RuleFile, expansion: Expansion) -> Iterator[Finding]:
    made = {name for unit in expansion.units for name, _ in unit.targets}
    for alias in expansion.aliases:
        if alias.of not in made:
            yield Finding(
                "alias",
                "an alias of no canonical tensor",
                rule_file.where(alias.alias.line),
                tensor=alias.of,
                expected="a name that a rule produces",
            )
    for name in sorted(expansion.allow_nan - made):
        yield Finding(
            "allow-nan",
            "allow_nan names no canonical tensor",
            rule_file.name,
            tensor=name,
            expected="a name that a rule produces",
        )
