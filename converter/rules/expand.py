"""From rules to units: every name, shape and step written out, for every index and set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Any, NamedTuple

from converter.canonical import TENSOR_NAME
from converter.errors import RuleError
from converter.finding import Finding
from converter.header import MAX_NAME_CHARS
from converter.rules.expression import Value
from converter.rules.form import Form, make_form, target_shape
from converter.rules.indices import (
    MAX_VALUES,
    Allowance,
    EndlessError,
    index_range,
    index_values,
    with_bounds,
)
from converter.rules.rule_file import (
    Alias,
    Allowed,
    Drop,
    Range,
    Repeat,
    Rule,
    RuleFile,
)
from converter.rules.settings import Settings
from converter.rules.template import Template
from converter.spec import Shape


@dataclass(frozen=True, slots=True)
class Unit:
    """One rule for one value of each of its indices: whole names of sources and of targets."""

    form: Form
    sources: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def rule(self) -> Rule:
        """The rule that this is one repetition of."""
        return self.form.rule

    @property
    def targets(self) -> tuple[tuple[str, Shape], ...]:
        """The names of the targets, each with its declared shape."""
        return tuple(zip(self.names, self.form.shapes, strict=True))


@dataclass(frozen=True, slots=True)
class DroppedName:
    """One source tensor to leave out; ``name`` is a prefix when the drop says ``**``."""

    drop: Drop
    name: str
    equals: str | None
    count: int | None


@dataclass(frozen=True, slots=True)
class AliasName:
    """One canonical name that is another."""

    alias: Alias
    name: str
    of: str


@dataclass(frozen=True, slots=True)
class Expansion:
    """All that a rule file says for some settings, written out, and what is wrong with it."""

    units: tuple[Unit, ...]
    drops: tuple[DroppedName, ...]
    aliases: tuple[AliasName, ...]
    allow_nan: Mapping[str, Allowed]
    findings: tuple[Finding, ...]


class _Assignment(NamedTuple):
    """Values for the indices and sets of one repetition."""

    values: Mapping[str, Value]
    source_texts: Mapping[str, str]
    target_texts: Mapping[str, str]


def expand(
    rule_file: RuleFile, settings: Settings, allowance: Allowance | None = None
) -> Expansion:
    """Write out a rule file. Never raises for a fault of the file: it is in ``findings``.

    ``allowance`` is how much may be written out, if other than for one rule file.
    """
    expander = _Expander(rule_file, settings, allowance or Allowance())
    try:
        return expander.expansion()
    except EndlessError:
        finding = Finding(
            "range",
            "the rules are repeated too often",
            rule_file.name,
            expected=f"at most {MAX_VALUES:,} names of all rules together",
            got="more, or as much work as for more",
            hint="look for a dim that is too large, or for too many indices and sets",
        )
        return Expansion((), (), (), {}, (finding,))


class _Expander:
    def __init__(self, rule_file: RuleFile, settings: Settings, allowance: Allowance) -> None:
        self.rule_file = rule_file
        self.settings = settings
        self.allowance = allowance
        self.prefix = settings.source_prefix + settings.scope.prefix
        self.findings: list[Finding] = []

    def expansion(self) -> Expansion:
        return Expansion(
            units=tuple(self.all_units()),
            drops=tuple(self.all_drops()),
            aliases=tuple(self.all_aliases()),
            allow_nan=dict(self.all_allowed()),
            findings=tuple(self.findings),
        )

    def all_units(self) -> Iterator[Unit]:
        """Yield units in execution order: consecutive rules over one index, index by index."""
        for first, rules in groupby(self.rule_file.rules, self.first_index):
            found = [pair for rule in rules for pair in self.units(rule, first)]
            if first is not None:
                found.sort(key=lambda pair: pair[0])
            yield from (unit for _, unit in found)

    def first_index(self, rule: Rule) -> str | None:
        needed = _needed(rule.repeat, _mentioned(rule), _listed_indices(rule))
        return next((name for name in rule.repeat.ranges if name in needed), None)

    def units(self, rule: Rule, first: str | None) -> Iterator[tuple[Any, Unit]]:
        listed = _listed_indices(rule)
        shaping = sorted(with_bounds(rule.repeat.ranges, _shaping(rule) | listed) - listed)
        forms: dict[tuple[Value, ...], Form] = {}
        try:
            for chosen in self.assignments(rule.repeat, _mentioned(rule), listed):
                sources = self.source_names(rule, chosen)
                names = self.target_names(rule, chosen)
                key = tuple(chosen.values[index] for index in shaping)
                if key not in forms:
                    forms[key] = self.form(rule, chosen, len(sources), names)
                yield (chosen.values[first] if first else 0), Unit(forms[key], sources, names)
        except RuleError as error:
            self.note(error, rule.line)

    def note(self, error: RuleError, line: int) -> None:
        for finding in error.findings:
            where = finding.where or self.rule_file.where(line)
            hint = finding.hint or "correct the rule, or the dims that it is for"
            self.findings.append(replace(finding, where=where, hint=hint))

    def assignments(
        self, repeat: Repeat, mentioned: frozenset[str], listed: frozenset[str] = frozenset()
    ) -> Iterator[_Assignment]:
        """Yield every choice of the indices and sets mentioned, but for those that are listed."""
        needed = _needed(repeat, mentioned, listed)
        sets = [name for name in repeat.sets if name in needed]
        indices = [name for name in repeat.ranges if name in needed]
        count = math.prod(len(repeat.sets[name]) for name in sets)
        self.allowance.spend(count * (1 + len(self.settings.words)))
        texts = []
        for pairs in product(*(repeat.sets[name].items() for name in sets)):
            before, after = (
                {s: p[side] for s, p in zip(sets, pairs, strict=True)} for side in (0, 1)
            )
            texts.append(({**self.settings.words, **before}, after))
        when = repeat.when
        weight = 1 if when is None else when.weight
        if when is not None and when.names.isdisjoint(repeat.ranges):
            if not when.evaluate(self.settings.dims):
                return
            when = None
        for values in index_values(repeat.ranges, indices, self.settings.dims, self.allowance):
            self.allowance.spend(weight)
            if when is not None and not when.evaluate(values):
                continue
            for source_texts, target_texts in texts:
                self.allowance.spend(1)
                yield _Assignment(values, source_texts, target_texts)

    def listed(
        self, repeat: Repeat, index: str | None, values: Mapping[str, Value]
    ) -> Iterable[Mapping[str, Value]]:
        """Return the values once, or once for every number of a gathered or scattered index."""
        return (
            (values,) if index is None else self.every_number(repeat.ranges[index], index, values)
        )

    def every_number(
        self, bounds: Range, index: str, values: Mapping[str, Value]
    ) -> Iterator[Mapping[str, Value]]:
        for number in index_range(bounds, values):
            self.allowance.spend_on_copy(values)
            yield {**values, index: number}

    def source_names(self, rule: Rule, chosen: _Assignment) -> tuple[str, ...]:
        names = [
            self.source_name(template, values, chosen)
            for template in rule.sources
            for values in self.listed(rule.repeat, rule.gather, chosen.values)
        ]
        return tuple(names)

    def source_name(
        self, template: Template, values: Mapping[str, Value], chosen: _Assignment
    ) -> str:
        self.allowance.spend(template.weight, 1)
        name = self.prefix + template.fill(values, chosen.source_texts)
        if len(name) > MAX_NAME_CHARS:
            raise RuleError(
                "too long for the name of a source tensor",
                code="name",
                expected=f"at most {MAX_NAME_CHARS} characters",
                got=f"{len(name):,}: {name:.80}…",
            )
        return name

    def target_names(self, rule: Rule, chosen: _Assignment) -> tuple[str, ...]:
        names = [
            self.target_name(target.name, values, chosen)
            for target in rule.targets
            for values in self.listed(rule.repeat, rule.scatter, chosen.values)
        ]
        return tuple(names)

    def target_name(
        self, template: Template, values: Mapping[str, Value], chosen: _Assignment
    ) -> str:
        self.allowance.spend(template.weight, 1)
        name = template.fill(values, chosen.target_texts)
        if not TENSOR_NAME.fullmatch(name):
            raise RuleError(
                "not the name of a canonical tensor",
                code="target",
                tensor=f"{name:.{MAX_NAME_CHARS}}",
                expected="1 to 512 letters, digits and _ . -, of which . and - not first",
                got=repr(name),
            )
        return name

    def form(self, rule: Rule, chosen: _Assignment, sources: int, names: tuple[str, ...]) -> Form:
        self.allowance.spend(sum(item.weight for call in rule.steps for item in call.expressions))
        shapes = []
        for target in rule.targets:
            weight = sum(length.weight for length in target.shape)
            for values in self.listed(rule.repeat, rule.scatter, chosen.values):
                self.allowance.spend(weight)
                shapes.append(target_shape(self.rule_file, target, values))
        return make_form(self.rule_file, rule, chosen.values, shapes, sources=sources, names=names)

    def all_drops(self) -> Iterator[DroppedName]:
        for drop in self.rule_file.drops:
            try:
                for template in drop.names:
                    mentioned = template.names | (drop.count.names if drop.count else frozenset())
                    for chosen in self.assignments(drop.repeat, mentioned):
                        yield self.dropped(drop, template, chosen)
            except RuleError as error:
                self.note(error, drop.line)

    def dropped(self, drop: Drop, template: Template, chosen: _Assignment) -> DroppedName:
        def source(name: Template) -> str:
            return self.source_name(name, chosen.values, chosen)

        equals = None if drop.equals is None else source(drop.equals)
        count = None
        if drop.count is not None:
            self.allowance.spend(drop.count.weight)
            count = drop.count.evaluate(chosen.values)
        return DroppedName(drop, source(template), equals, count)

    def all_aliases(self) -> Iterator[AliasName]:
        for alias in self.rule_file.aliases:
            try:
                for chosen in self.assignments(alias.repeat, alias.name.names | alias.of.names):
                    name = self.target_name(alias.name, chosen.values, chosen)
                    yield AliasName(alias, name, self.target_name(alias.of, chosen.values, chosen))
            except RuleError as error:
                self.note(error, alias.line)

    def all_allowed(self) -> Iterator[tuple[str, Allowed]]:
        for allowed in self.rule_file.allow_nan:
            try:
                for chosen in self.assignments(allowed.repeat, allowed.name.names):
                    yield self.target_name(allowed.name, chosen.values, chosen), allowed
            except RuleError as error:
                self.note(error, allowed.line)


def _mentioned(rule: Rule) -> frozenset[str]:
    """Return every name that the placeholders, shapes and parameters of a rule mention."""
    sources = (template.names for template in rule.sources)
    targets = (target.name.names for target in rule.targets)
    return _shaping(rule).union(*sources, *targets)


def _shaping(rule: Rule) -> frozenset[str]:
    """Return every name that the shapes and parameters of a rule mention."""
    parts = [length.names for target in rule.targets for length in target.shape]
    parts += [item.names for call in rule.steps for item in call.expressions]
    return frozenset().union(*parts)


def _listed_indices(rule: Rule) -> frozenset[str]:
    """Return the indices that list tensors instead of repeating the rule."""
    return frozenset(index for index in (rule.gather, rule.scatter) if index is not None)


def _needed(repeat: Repeat, mentioned: frozenset[str], listed: frozenset[str]) -> frozenset[str]:
    """Return the indices and sets to repeat over: those mentioned, and those their ranges need."""
    if repeat.when is not None:
        mentioned |= repeat.when.names & repeat.ranges.keys()
    return (with_bounds(repeat.ranges, mentioned) | (mentioned & repeat.sets.keys())) - listed
