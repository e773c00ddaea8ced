"""From rules to units: every name, shape and step written out, for every index and set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Any

from converter.canonical import TENSOR_NAME
from converter.errors import RuleError, StepError
from converter.finding import Finding
from converter.header import MAX_RANK
from converter.rules.expression import Expression, Value
from converter.rules.indices import MAX_VALUES, index_range, index_values, with_bounds
from converter.rules.rule_file import (
    Alias,
    Allowed,
    Drop,
    Repeat,
    Rule,
    RuleFile,
    StepCall,
    Target,
)
from converter.rules.settings import Settings
from converter.rules.template import Template
from converter.spec import Shape, TensorSpec
from converter.steps.build import build
from converter.steps.chain import infer_chain, preimage_chain
from converter.steps.step import Step


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """All that a unit is but names, shared by the units of a rule for which it is the same.

    ``shapes`` are those that the rule declares for its targets; ``source_shapes`` are those that
    the sources must then have, or None where the steps leave that open.
    """

    rule: Rule
    steps: tuple[Step, ...]
    shapes: tuple[Shape, ...]
    source_shapes: tuple[Shape, ...] | None


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


@dataclass(frozen=True, slots=True)
class _Assignment:
    """Values for the indices and sets of one repetition."""

    values: Mapping[str, Value]
    source_texts: Mapping[str, str]
    target_texts: Mapping[str, str]


def expand(rule_file: RuleFile, settings: Settings) -> Expansion:
    """Write out a rule file. Never raises for a fault of the file: it is in ``findings``."""
    expander = _Expander(rule_file, settings)
    try:
        return expander.expansion()
    except _EndlessError:
        finding = Finding(
            "range",
            "the indices have too many values",
            rule_file.name,
            expected=f"at most {MAX_VALUES:,} repetitions of all rules together",
            got="more",
            hint="look for a dim that is too large",
        )
        return Expansion((), (), (), {}, (finding,))


class _EndlessError(Exception):
    """There are more repetitions than any checkpoint has tensors."""


class _Expander:
    def __init__(self, rule_file: RuleFile, settings: Settings) -> None:
        self.rule_file = rule_file
        self.settings = settings
        self.prefix = settings.source_prefix + settings.scope.prefix
        self.findings: list[Finding] = []
        self.left = MAX_VALUES

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
        texts = []
        for pairs in product(*(repeat.sets[name].items() for name in sets)):
            before, after = (
                {s: p[side] for s, p in zip(sets, pairs, strict=True)} for side in (0, 1)
            )
            texts.append(({**self.settings.words, **before}, after))
        when = repeat.when
        if when is not None and when.names.isdisjoint(repeat.ranges):
            if not when.evaluate(self.settings.dims):
                return
            when = None
        for values in index_values(repeat.ranges, indices, self.settings.dims):
            if when is not None and not when.evaluate(values):
                continue
            for source_texts, target_texts in texts:
                self.count()
                yield _Assignment(values, source_texts, target_texts)

    def count(self) -> None:
        """Count one repetition; there is an end to them, whatever the dims."""
        self.left -= 1
        if self.left < 0:
            raise _EndlessError

    def source_names(self, rule: Rule, chosen: _Assignment) -> tuple[str, ...]:
        return tuple(
            self.prefix + template.fill(values, chosen.source_texts)
            for template in rule.sources
            for values in _listed(rule.repeat, rule.gather, chosen.values)
        )

    def target_names(self, rule: Rule, chosen: _Assignment) -> tuple[str, ...]:
        names = tuple(
            target.name.fill(values, chosen.target_texts)
            for target in rule.targets
            for values in _listed(rule.repeat, rule.scatter, chosen.values)
        )
        for name in names:
            if not TENSOR_NAME.fullmatch(name):
                raise RuleError(
                    "not the name of a canonical tensor",
                    code="target",
                    tensor=name,
                    expected="1 to 512 letters, digits and _ . -, of which . and - not first",
                    got=repr(name),
                )
        return names

    def form(self, rule: Rule, chosen: _Assignment, sources: int, names: tuple[str, ...]) -> Form:
        steps = tuple(self.step(call, chosen) for call in rule.steps)
        shapes = tuple(
            self.shape(target, values)
            for target in rule.targets
            for values in _listed(rule.repeat, rule.scatter, chosen.values)
        )
        targets = tuple(zip(names, shapes, strict=True))
        return Form(rule, steps, shapes, self.source_shapes(rule, sources, steps, targets))

    def shape(self, target: Target, values: Mapping[str, Value]) -> Shape:
        where = self.rule_file.where(target.line)
        try:
            shape = tuple(length.evaluate(values) for length in target.shape)
        except RuleError as error:
            raise RuleError.of([replace(f, where=where) for f in error.findings]) from error
        if min(shape, default=0) < 0 or len(shape) > MAX_RANK:
            raise RuleError(
                "not the shape of a canonical tensor",
                code="target",
                where=where,
                tensor=target.name.text,
                expected=f"at most {MAX_RANK} lengths, each 0 or more",
                got=str(list(shape)),
            )
        return shape

    def step(self, call: StepCall, chosen: _Assignment) -> Step:
        parameters: dict[str, object] = {}
        try:
            for name, value in call.parameters.items():
                if isinstance(value, Expression):
                    parameters[name] = value.evaluate(chosen.values)
                elif isinstance(value, tuple):
                    parameters[name] = tuple(item.evaluate(chosen.values) for item in value)
                else:
                    parameters[name] = value
            return build(call.name, parameters)
        except RuleError as error:
            where = self.rule_file.where(call.line)
            raise RuleError.of([replace(f, where=where) for f in error.findings]) from error

    def source_shapes(
        self,
        rule: Rule,
        count: int,
        steps: tuple[Step, ...],
        targets: tuple[tuple[str, Shape], ...],
    ) -> tuple[Shape, ...] | None:
        """Work the declared shapes back through the steps, and forth again."""
        declared = tuple(shape for _, shape in targets)
        try:
            shapes = preimage_chain(steps, declared, sources=count)
            if shapes is None:
                return None
            specs = tuple(TensorSpec(rule.dtypes[0], shape) for shape in shapes)
            inferred = tuple(spec.shape for spec in infer_chain(steps, specs))
        except StepError as error:
            raise self.shapes_error(rule, targets, error) from error
        if inferred != declared:
            raise self.shapes_error(rule, targets, StepError("the steps lead elsewhere"))
        return shapes

    def shapes_error(
        self, rule: Rule, targets: tuple[tuple[str, Shape], ...], error: StepError
    ) -> RuleError:
        finding = error.findings[0]
        return RuleError(
            f"the shapes cannot add up: {finding.what}",
            code="shape",
            where=self.rule_file.where(rule.steps[0].line if rule.steps else rule.line),
            tensor=", ".join(f"{name} {list(shape)}" for name, shape in targets),
            expected=finding.expected,
            got=finding.got,
            hint=finding.hint,
        )

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
            return self.prefix + name.fill(chosen.values, chosen.source_texts)

        equals = None if drop.equals is None else source(drop.equals)
        count = None if drop.count is None else drop.count.evaluate(chosen.values)
        return DroppedName(drop, source(template), equals, count)

    def all_aliases(self) -> Iterator[AliasName]:
        for alias in self.rule_file.aliases:
            try:
                for chosen in self.assignments(alias.repeat, alias.name.names | alias.of.names):
                    name = alias.name.fill(chosen.values, chosen.target_texts)
                    of = alias.of.fill(chosen.values, chosen.target_texts)
                    yield AliasName(alias, name, of)
            except RuleError as error:
                self.note(error, alias.line)

    def all_allowed(self) -> Iterator[tuple[str, Allowed]]:
        for allowed in self.rule_file.allow_nan:
            try:
                for chosen in self.assignments(allowed.repeat, allowed.name.names):
                    yield allowed.name.fill(chosen.values, chosen.target_texts), allowed
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
    for call in rule.steps:
        for value in call.parameters.values():
            items = value if isinstance(value, tuple) else (value,)
            parts += [item.names for item in items if isinstance(item, Expression)]
    return frozenset().union(*parts)


def _listed_indices(rule: Rule) -> frozenset[str]:
    """Return the indices that list tensors instead of repeating the rule."""
    return frozenset(index for index in (rule.gather, rule.scatter) if index is not None)


def _needed(repeat: Repeat, mentioned: frozenset[str], listed: frozenset[str]) -> frozenset[str]:
    """Return the indices and sets to repeat over: those mentioned, and those their ranges need."""
    if repeat.when is not None:
        mentioned |= repeat.when.names & repeat.ranges.keys()
    return (with_bounds(repeat.ranges, mentioned) | (mentioned & repeat.sets.keys())) - listed


def _listed(
    repeat: Repeat, index: str | None, values: Mapping[str, Value]
) -> Iterator[Mapping[str, Value]]:
    """Yield the values once, or once for every number of a gathered or scattered index."""
    if index is None:
        yield values
        return
    for number in index_range(repeat.ranges[index], values):
        yield {**values, index: number}
