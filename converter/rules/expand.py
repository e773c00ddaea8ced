"""From rules to units: every name, shape and step written out, for every index and set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Any

from converter.canonical import TENSOR_NAME
from converter.errors import RuleError, StepError
from converter.finding import Finding
from converter.rules.expression import Expression, Value
from converter.rules.rule_file import Alias, Drop, Repeat, Rule, RuleFile, StepCall
from converter.rules.settings import Settings
from converter.rules.template import Template
from converter.spec import Shape, TensorSpec
from converter.steps.build import build
from converter.steps.chain import infer_chain, preimage_chain
from converter.steps.step import Step


@dataclass(frozen=True, slots=True)
class Unit:
    """One rule for one value of each of its indices.

    ``sources`` are whole names; ``source_shapes`` is what the declared target shapes say that the
    sources must have, or None where the steps leave that open.
    """

    rule: Rule
    sources: tuple[str, ...]
    steps: tuple[Step, ...]
    targets: tuple[tuple[str, Shape], ...]
    source_shapes: tuple[Shape, ...] | None


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
    allow_nan: frozenset[str]
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
    return Expansion(
        units=tuple(expander.all_units()),
        drops=tuple(expander.all_drops()),
        aliases=tuple(expander.all_aliases()),
        allow_nan=frozenset(expander.all_allowed()),
        findings=tuple(expander.findings),
    )


class _Expander:
    def __init__(self, rule_file: RuleFile, settings: Settings) -> None:
        self.rule_file = rule_file
        self.settings = settings
        self.prefix = settings.source_prefix + settings.scope.prefix
        self.findings: list[Finding] = []
        self.steps: dict[tuple[object, ...], Step] = {}

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
        try:
            for chosen in self.assignments(rule.repeat, _mentioned(rule), _listed_indices(rule)):
                yield (chosen.values[first] if first else 0), self.unit(rule, chosen)
        except RuleError as error:
            self.note(error, rule.line)

    def note(self, error: RuleError, line: int) -> None:
        for finding in error.findings:
            where = finding.where or self.rule_file.where(line)
            self.findings.append(replace(finding, where=where))

    def assignments(
        self, repeat: Repeat, mentioned: frozenset[str], listed: frozenset[str] = frozenset()
    ) -> Iterator[_Assignment]:
        """Yield every choice of the indices and sets mentioned, but for those that are listed."""
        needed = _needed(repeat, mentioned, listed)
        sets = [name for name in repeat.sets if name in needed]
        words = self.settings.words
        for values in self.index_values(repeat, [n for n in repeat.ranges if n in needed]):
            if repeat.when is not None and not repeat.when.evaluate(values):
                continue
            for pairs in product(*(repeat.sets[name].items() for name in sets)):
                chosen = dict(zip(sets, pairs, strict=True))
                yield _Assignment(
                    values=values,
                    source_texts={**words, **{name: pair[0] for name, pair in chosen.items()}},
                    target_texts={name: pair[1] for name, pair in chosen.items()},
                )

    def index_values(self, repeat: Repeat, names: list[str]) -> Iterator[dict[str, Value]]:
        def extend(values: dict[str, Value], left: list[str]) -> Iterator[dict[str, Value]]:
            if not left:
                yield values
                return
            for number in _range(repeat, left[0], values):
                yield from extend({**values, left[0]: number}, left[1:])

        yield from extend(dict(self.settings.dims), names)

    def unit(self, rule: Rule, chosen: _Assignment) -> Unit:
        sources = self.source_names(rule, chosen)
        steps = tuple(self.step(call, chosen) for call in rule.steps)
        targets = self.targets(rule, chosen)
        shapes = self.source_shapes(rule, len(sources), steps, targets)
        return Unit(rule, sources, steps, targets, shapes)

    def source_names(self, rule: Rule, chosen: _Assignment) -> tuple[str, ...]:
        return tuple(
            self.prefix + template.fill(values, chosen.source_texts)
            for template in rule.sources
            for values in _listed(rule.repeat, rule.gather, chosen.values)
        )

    def targets(self, rule: Rule, chosen: _Assignment) -> tuple[tuple[str, Shape], ...]:
        found = []
        for target in rule.targets:
            for values in _listed(rule.repeat, rule.scatter, chosen.values):
                name = target.name.fill(values, chosen.target_texts)
                shape = tuple(length.evaluate(values) for length in target.shape)
                if not TENSOR_NAME.fullmatch(name) or min(shape, default=0) < 0:
                    raise RuleError(
                        "not a canonical tensor",
                        code="target",
                        where=self.rule_file.where(target.line),
                        tensor=name,
                        expected="letters, digits and _ . - in the name; no negative length",
                        got=f"{name} {list(shape)}",
                    )
                found.append((name, shape))
        return tuple(found)

    def step(self, call: StepCall, chosen: _Assignment) -> Step:
        parameters: dict[str, object] = {}
        for name, value in call.parameters.items():
            if isinstance(value, Expression):
                parameters[name] = value.evaluate(chosen.values)
            elif isinstance(value, tuple):
                parameters[name] = tuple(item.evaluate(chosen.values) for item in value)
            else:
                parameters[name] = value
        key = (call.name, *parameters.items())
        if key not in self.steps:
            try:
                self.steps[key] = build(call.name, parameters)
            except RuleError as error:
                where = self.rule_file.where(call.line)
                raise RuleError.of([replace(f, where=where) for f in error.findings]) from error
        return self.steps[key]

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

    def all_allowed(self) -> Iterator[str]:
        for template, repeat in self.rule_file.allow_nan:
            try:
                for chosen in self.assignments(repeat, template.names):
                    yield template.fill(chosen.values, chosen.target_texts)
            except RuleError as error:
                self.note(error, 1)


def _mentioned(rule: Rule) -> frozenset[str]:
    """Return every name that the placeholders, shapes and parameters of a rule mention."""
    parts = [template.names for template in rule.sources]
    for target in rule.targets:
        parts += [target.name.names, *(length.names for length in target.shape)]
    for call in rule.steps:
        for value in call.parameters.values():
            items = value if isinstance(value, tuple) else (value,)
            parts += [item.names for item in items if isinstance(item, Expression)]
    return frozenset().union(*parts)


def _listed_indices(rule: Rule) -> frozenset[str]:
    """Return the indices that list tensors instead of repeating the rule."""
    return frozenset(index for index in (rule.gather, rule.scatter) if index is not None)


def _needed(repeat: Repeat, mentioned: frozenset[str], listed: frozenset[str]) -> set[str]:
    """Return the indices and sets to repeat over: those mentioned, and those their ranges need."""
    needed = {name for name in mentioned if name in repeat.ranges or name in repeat.sets}
    if repeat.when is not None:
        needed |= repeat.when.names & repeat.ranges.keys()
    while True:
        more = {
            bound
            for name in needed & repeat.ranges.keys()
            for bound in repeat.ranges[name].names & repeat.ranges.keys()
        }
        if more <= needed:
            return needed - listed
        needed |= more


def _range(repeat: Repeat, name: str, values: Mapping[str, Value]) -> range:
    bounds = repeat.ranges[name]
    return range(bounds.first.evaluate(values), bounds.last.evaluate(values) + 1)


def _listed(
    repeat: Repeat, index: str | None, values: Mapping[str, Value]
) -> Iterator[Mapping[str, Value]]:
    """Yield the values once, or once for every number of a gathered or scattered index."""
    if index is None:
        yield values
        return
    for number in _range(repeat, index, values):
        yield {**values, index: number}
