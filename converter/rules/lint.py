"""What can be known from a rule file alone, for its own dims or for others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise, product
from typing import TypeAlias

from converter.errors import PlanError, RuleError, UsageError
from converter.finding import Finding, closest, first_few
from converter.fold import fold_findings
from converter.rules.expand import Expansion, expand
from converter.rules.indices import Allowance, EndlessError
from converter.rules.lint_conventions import missing_conventions
from converter.rules.lint_layout import layout
from converter.rules.lint_reach import Force, idle_conditions
from converter.rules.lint_steps import Note, notes, steps
from converter.rules.lint_unused import unused
from converter.rules.rule_file import RuleFile, Scope
from converter.rules.settings import Settings, choices, resolve

# Names, each with the line of what claims it.
Claims: TypeAlias = list[tuple[str, int]]

# Of a file with more variants than that together, the rest are left to whoever combines them.
_MOST_COMBINATIONS = 256


@dataclass(frozen=True, slots=True)
class Linted:
    """What is wrong with a rule file, and what its steps lose, which is no fault."""

    findings: tuple[Finding, ...]
    notes: tuple[Note, ...] = ()


def lint(rule_file: RuleFile, settings: Settings) -> tuple[Finding, ...]:
    """Return what is wrong with a rule file by itself, under these settings."""
    return _all_findings(rule_file, settings, expand(rule_file, settings))


def lint_file(rule_file: RuleFile) -> Linted:
    """Return all that can be known of a rule file by itself: its faults, and what it loses.

    It is looked at under each combination of its variants. What no expansion shows is looked for
    too: names that are not used, rules that never count.
    """
    found: list[Finding] = []
    losses: dict[Note, None] = {}
    force = Force(rule_file)
    allowance = Allowance()
    first = set(choices(rule_file))
    for variant in (*choices(rule_file), *_combinations(rule_file)):
        allowance = Allowance(allowance.work)  # the variants of one file share the work
        try:
            settings = resolve(rule_file, variant=variant, allowance=allowance)
            expansion = expand(rule_file, settings, allowance)
        except (RuleError, PlanError, UsageError) as error:
            if variant in first:  # that others do not go together is for those who choose them
                found += error.findings
            continue
        wrong = _all_findings(rule_file, settings, expansion)
        if not wrong:
            force.note(settings, expansion)
            losses |= dict.fromkeys(notes(rule_file, expansion))
            wrong = _of_a_whole(rule_file, settings, expansion)
        found += wrong
        if allowance.work < 0:
            break
    if not found:
        with suppress(EndlessError):
            found += force.lacking(allowance)
    found += (*unused(rule_file), *idle_conditions(rule_file))
    return Linted(tuple(first_few(dict.fromkeys(found), rule_file.name)), tuple(losses))


def _combinations(rule_file: RuleFile) -> Iterator[tuple[str, ...]]:
    """Yield combinations of variants beyond those in which all axes but one have their default."""
    first = set(choices(rule_file))
    combined = (names for names in product(*rule_file.variants.values()) if names not in first)
    return islice(combined, _MOST_COMBINATIONS)


def _of_a_whole(
    rule_file: RuleFile, settings: Settings, expansion: Expansion
) -> tuple[Finding, ...]:
    """Return what is odd about an expansion without a fault: nothing that a plan would refuse."""
    found = (
        *steps(rule_file, expansion),
        *layout(rule_file, settings, expansion),
        *missing_conventions(rule_file, settings, expansion),
    )
    return tuple(first_few(fold_findings(found), rule_file.name))


def expand_checked(rule_file: RuleFile, settings: Settings) -> Expansion:
    """Write out a rule file that has no fault.

    Raises RuleError with every finding; PlanError when the dims were set by the caller, since
    the fault may be theirs.
    """
    expansion = expand(rule_file, settings)
    findings = _all_findings(rule_file, settings, expansion)
    if findings:
        raise (RuleError if settings.own_dims else PlanError).of(findings)
    return expansion


def _all_findings(
    rule_file: RuleFile, settings: Settings, expansion: Expansion
) -> tuple[Finding, ...]:
    sources = [(name, unit.rule.line) for unit in expansion.units for name in unit.sources]
    found = (
        *expansion.findings,
        *_sources_used_twice(rule_file, expansion, sources),
        *_sources_out_of_scope(rule_file, settings, expansion, sources),
        *_targets_made_twice(rule_file, expansion),
        *_names_of_nothing(rule_file, expansion),
    )
    return tuple(first_few(fold_findings(found), rule_file.name))


def _sources_used_twice(
    rule_file: RuleFile, expansion: Expansion, sources: Claims
) -> Iterator[Finding]:
    dropped = [(drop.name, drop.drop.line) for drop in expansion.drops if drop.count is None]
    yield from _collisions(rule_file, [*sources, *dropped], "one source tensor is used twice")
    rests = sorted((d.name, d.drop.line) for d in expansion.drops if d.count is not None)
    for (first, line), (second, other) in pairwise(rests):
        if second.startswith(first):
            yield Finding(
                "collision",
                "one source tensor is dropped twice",
                rule_file.where(other),
                tensor=f"{second}**",
                expected="each name exactly once",
                got=f"{first}** at {rule_file.where(line)}",
                hint="let one of the two stand for all of them",
            )


def _sources_out_of_scope(
    rule_file: RuleFile, settings: Settings, expansion: Expansion, sources: Claims
) -> Iterator[Finding]:
    claims = [*sources, *((drop.name, drop.drop.line) for drop in expansion.drops)]
    in_scope = settings.held(name for name, _ in claims)
    for name, line in claims:
        if name not in in_scope:
            yield Finding(
                "out-of-scope",
                "a source tensor that is out of scope",
                rule_file.where(line),
                tensor=name,
                expected="names in scope: " + _scope_text(settings.scope),
                got="a name beyond it",
                hint="widen the scope, or leave the name to the model that it belongs to",
            )


def _scope_text(scope: Scope) -> str:
    if scope.excluded:
        return f"all but those that begin with {', '.join(scope.excluded)}"
    return f"those that begin with {', '.join(scope.prefixes)}"


def _targets_made_twice(rule_file: RuleFile, expansion: Expansion) -> Iterator[Finding]:
    claims = [(name, unit.rule.line) for unit in expansion.units for name in unit.names]
    claims += [(alias.name, alias.alias.line) for alias in expansion.aliases]
    return _collisions(rule_file, claims, "two sources for one target")


def _collisions(rule_file: RuleFile, claims: Claims, what: str) -> Iterator[Finding]:
    if len(dict(claims)) == len(claims):
        return
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
    if not expansion.aliases and not expansion.allow_nan:
        return
    made = {name for unit in expansion.units for name in unit.names}
    for alias in expansion.aliases:
        if alias.of not in made:
            yield _names_nothing(
                "alias",
                f"{alias.name} is an alias of no canonical tensor",
                alias.of,
                rule_file.where(alias.alias.line),
                made,
            )
    # A name that a rule states, but not for these dims, is no mistake: allow_nan knows no when.
    stated = {target.name.text for rule in rule_file.rules for target in rule.targets}
    for name, allowed in expansion.allow_nan.items():
        if name not in made and allowed.name.text not in stated:
            what = "allow_nan names no canonical tensor"
            yield _names_nothing("allow-nan", what, name, rule_file.where(allowed.line), made)


def _names_nothing(code: str, what: str, name: str, where: str, made: Iterable[str]) -> Finding:
    near = closest(name, made)
    return Finding(
        code,
        what,
        where,
        tensor=name,
        expected="a name that a rule produces",
        got="no rule produces it",
        hint=f"did you mean {near!r}?" if near else "correct the name, or its when",
    )
