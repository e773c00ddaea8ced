"""Explain the tensors of a conversion that would be made, by its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product

from converter.canonical import encode_header
from converter.explain import Explanation, Place, Role, Trace, roles_of, stages_of
from converter.plan import Binding, Dropped, Plan
from converter.rules.expand import expand
from converter.rules.expression import Value
from converter.rules.indices import Allowance, index_range, index_values, with_bounds
from converter.rules.rule_file import Rule, Scope
from converter.rules.settings import Settings
from converter.spec import Header

_Choice = tuple[dict[str, int], dict[str, tuple[str, str]]]


def explain_plan(pattern: str, plan: Plan, header: Header) -> Explanation:
    """Explain a name, or all that begin with what is before ``**``.

    ``header`` is that of the plan's source, of which some may be out of scope. Raises UsageError
    for a name that neither source nor plan has.
    """
    book = _Book(plan, header)
    return Explanation(
        by="plan",
        model=plan.rule_file.model,
        rules=plan.rule_file.name,
        rules_sha256=plan.rule_file.sha256,
        files=(),
        roles=tuple(roles_of(pattern, book.names, book.roles)),
    )


class _Book:
    """Names of a plan and its source, and what they stand for."""

    def __init__(self, plan: Plan, header: Header) -> None:
        self.plan = plan
        self.header = header
        self.makes = {name: item for item in plan.bindings for name in item.targets}
        self.takes = {name: item for item in plan.bindings for name in item.sources}
        self.absent = {name: item for item in plan.bindings for name in item.absent}
        self.dropped = {item.name: item for item in plan.dropped}
        self.traces: dict[int, Trace] = {}
        self.choices: dict[int, dict[str, _Choice]] = {}

    @property
    def names(self) -> Sequence[str]:
        return [*self.makes, *self.plan.aliases, *self.header, *self.absent]

    @cached_property
    def places(self) -> dict[str, tuple[str, int]]:
        """File and offset of every target."""
        found = {}
        for shard in self.plan.shards:
            start = len(encode_header(shard.placements))
            for placement in shard.placements:
                found[placement.name] = (shard.file, start + placement.begin)
        return found

    def roles(self, name: str) -> list[Role]:
        found = []
        if name in self.makes:
            spec = self.plan.targets[name]
            found.append(Role(name, "canonical", self.trace(self.makes[name]), spec))
        if name in self.plan.aliases:
            found.append(self.alias(name, self.plan.aliases[name]))
        if name in self.takes:
            spec = self.header[name]
            found.append(Role(name, "source", self.trace(self.takes[name]), spec))
        if name in self.dropped:
            found.append(self.left_out(self.dropped[name]))
        elif name in self.header and name not in self.takes:
            reason = f"in scope are {_scope(self.plan.settings)}"
            role = Role(name, "out-of-scope", spec=self.header[name], because=reason)
            found.append(role)
        if name in self.absent:
            found.append(Role(name, "absent", self.trace(self.absent[name])))
        return found

    def alias(self, name: str, of: str) -> Role:
        rule_file = self.plan.rule_file
        only = replace(rule_file, rules=(), drops=(), allow_nan=())
        listed = expand(only, self.plan.settings).aliases
        alias = next(item.alias for item in listed if item.name == name)
        trace, spec = self.trace(self.makes[of]), self.plan.targets[of]
        where = rule_file.where(alias.line)
        return Role(name, "alias", trace, spec, of, alias.because, where=where)

    def left_out(self, dropped: Dropped) -> Role:
        return Role(
            dropped.name,
            "dropped",
            spec=self.header[dropped.name],
            because=dropped.because,
            value=f"equals {dropped.equals}" if dropped.equals else dropped.expect,
            where=self.plan.rule_file.where(dropped.line),
        )

    def trace(self, binding: Binding) -> Trace:
        """Return the unit of work of a binding, each time the same."""
        if id(binding) not in self.traces:
            self.traces[id(binding)] = self.traced(binding)
        return self.traces[id(binding)]

    def choice(self, binding: Binding) -> _Choice:
        """Return the values of the indices of a binding's rule, and the words of its sets."""
        if binding.line not in self.choices:
            rules = (rule for rule in self.plan.rule_file.rules if rule.line == binding.line)
            found: dict[str, _Choice] = {}
            for rule in rules:
                found |= _choices(rule, self.plan.settings)
            self.choices[binding.line] = found
        return self.choices[binding.line].get(binding.targets[0], ({}, {}))

    def traced(self, binding: Binding) -> Trace:
        targets = zip(binding.targets, binding.outputs, strict=True)
        indices, words = self.choice(binding)
        return Trace(
            sources=tuple(zip(binding.sources, binding.inputs, strict=True)),
            stages=stages_of(binding.steps, binding.inputs),
            targets=tuple(Place(name, spec, *self.places[name]) for name, spec in targets),
            where=self.plan.rule_file.where(binding.line),
            indices=indices,
            words=words,
            fill=binding.stand_in.fill if binding.stand_in else None,
            absent=binding.absent,
        )


def _choices(rule: Rule, settings: Settings) -> dict[str, _Choice]:
    """Return what each repetition of a rule chooses, by the name of its first target.

    An index that lists tensors has no one value, and is left out.
    """
    ranges, sets = rule.repeat.ranges, rule.repeat.sets
    templates = (*rule.sources, *(target.name for target in rule.targets))
    mentioned = frozenset[str]().union(*(template.names for template in templates))
    needed = with_bounds(ranges, mentioned) - {rule.gather, rule.scatter}
    indices = [name for name in ranges if name in needed]
    names = [name for name in sets if name in mentioned]
    found = {}
    for values in index_values(ranges, indices, settings.dims, Allowance()):
        if rule.scatter is not None:
            listed = index_range(ranges[rule.scatter], values)
            values |= dict.fromkeys([rule.scatter], listed[0] if listed else 0)
        for pairs in product(*(sets[name].items() for name in names)):
            words = dict(zip(names, pairs, strict=True))
            texts = {name: after for name, (_, after) in words.items()}
            first = rule.targets[0].name.fill(values, texts)
            found[first] = ({name: _number(values[name]) for name in indices}, words)
    return found


def _number(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _scope(settings: Settings) -> str:
    scope, prefix = settings.scope, settings.source_prefix
    within = _prefixes(scope, prefix)
    if not scope.excluded:
        return within
    excluded = " or ".join(repr(prefix + item) for item in scope.excluded)
    return f"{within}, but none that begin with {excluded}"


def _prefixes(scope: Scope, prefix: str) -> str:
    prefixes = [prefix + item for item in scope.prefixes if prefix + item]
    if not prefixes:
        return "all names"
    return f"names that begin with {' or '.join(map(repr, prefixes))}"
