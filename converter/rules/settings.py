"""The choices of one conversion: variants, dims, words and scope, checked against a rule file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from converter.errors import PlanError, RuleError, UsageError
from converter.finding import Finding, closest, first_few, listed
from converter.manifest import Dim, Scalar
from converter.rules.expression import Expression, Value
from converter.rules.indices import Allowance, EndlessError, index_values, with_bounds
from converter.rules.rule_file import Derived, Requirement, RuleFile, Scope, Variant

_TOO_LARGE = 1 << 62


@dataclass(frozen=True, slots=True)
class Settings:
    """What a rule file means for one conversion.

    ``dims`` holds the dims and the derived values; ``own_dims`` says that none of them was set by
    the caller, so that what does not add up is the rule file's fault. ``source_prefix`` stands
    before every name of the source.
    """

    variant: tuple[str, ...]
    dims: Mapping[str, Dim]
    words: Mapping[str, str]
    conventions: Mapping[str, Scalar]
    audio: Mapping[str, Scalar]
    scope: Scope
    source_prefix: str
    own_dims: bool
    options: Mapping[str, str]

    def holds(self, name: str) -> bool:
        """Whether a whole name of the source belongs to the model."""
        return name in self.held([name])

    def held(self, names: Iterable[str]) -> set[str]:
        """Return those of some whole names of a source that belong to the model."""
        return self.scope.held(names, behind=self.source_prefix)


def resolve(
    rule_file: RuleFile,
    *,
    variant: Sequence[str] = (),
    dims: Mapping[str, Dim] | None = None,
    scope: str | None = None,
    source_prefix: str = "",
    allowance: Allowance | None = None,
) -> Settings:
    """Choose variants, then set dims, then work out the derived values.

    ``allowance`` is how much may be worked out for requirements, if other than for one choice.
    Raises UsageError for a variant or dim that does not exist, RuleError for a derived value
    without a value, PlanError (all findings) when the dims break a requirement.
    """
    names, chosen = _choose(rule_file, variant)
    values, words, conventions, found_scope = _override(rule_file, names, chosen)
    overrides = dict(dims or {})
    for name, value in overrides.items():
        _check_dim(rule_file, name, value)
    values.update(overrides)
    audio, fault = _work_out(rule_file, values)
    if broken := _broken_requirements(rule_file, values, allowance or Allowance()):
        raise PlanError.of(broken)
    if fault is not None:
        raise (PlanError if overrides else RuleError).of([fault])
    return Settings(
        variant=names,
        dims=values,
        words=words,
        conventions=conventions,
        audio=audio,
        scope=found_scope if scope is None else Scope.of_prefix(scope),
        source_prefix=source_prefix,
        own_dims=not overrides,
        options=_options(scope, source_prefix),
    )


def choices(rule_file: RuleFile) -> Iterator[tuple[str, ...]]:
    """Yield choices that use every variant: each in turn, with the defaults of other axes."""
    plain = {
        axis: min(variants.items(), key=lambda item: not item[1].is_default)[0]
        for axis, variants in rule_file.variants.items()
    }
    yield tuple(plain.values())
    for axis, variants in rule_file.variants.items():
        yield from (tuple({**plain, axis: n}.values()) for n in variants if n != plain[axis])


def _options(scope: str | None, source_prefix: str) -> dict[str, str]:
    given = {"scope": scope, "source_prefix": source_prefix or None}
    return {key: value for key, value in given.items() if value is not None}


def _choose(
    rule_file: RuleFile, variant: Sequence[str]
) -> tuple[tuple[str, ...], tuple[Variant, ...]]:
    """Return the variant that holds on each axis, in the order of the file."""
    axis_of = {name: axis for axis, choices in rule_file.variants.items() for name in choices}
    chosen: dict[str, str] = {}
    for name in variant:
        if name not in axis_of:
            near = closest(name, axis_of)
            raise UsageError(
                f"{rule_file.model} has no variant {name!r}",
                expected=listed(axis_of, "none: it has no variants"),
                hint=f"did you mean {near!r}?" if near else None,
            )
        axis = axis_of[name]
        if chosen.setdefault(axis, name) != name:
            raise UsageError(
                f"{chosen[axis]!r} and {name!r} are both of the axis {axis!r}",
                hint="choose one of them",
            )
    for axis, choices in rule_file.variants.items():
        if axis not in chosen:
            chosen[axis] = _default(rule_file, axis, choices)
    names = tuple(chosen[axis] for axis in rule_file.variants)
    return names, tuple(rule_file.variants[axis_of[name]][name] for name in names)


def _default(rule_file: RuleFile, axis: str, choices: Mapping[str, Variant]) -> str:
    defaults = [name for name, choice in choices.items() if choice.is_default]
    if len(defaults) != 1:
        raise UsageError(
            f"{rule_file.model} needs a variant of the axis {axis!r}",
            expected=listed(choices),
            hint="choose with --variant",
        )
    return defaults[0]


def _override(
    rule_file: RuleFile, names: Sequence[str], chosen: Sequence[Variant]
) -> tuple[dict[str, Dim], dict[str, str], dict[str, Scalar], Scope]:
    dims, words, scope = dict(rule_file.dims), dict(rule_file.words), rule_file.scope
    conventions = dict(rule_file.conventions)
    taken: dict[str, str] = {}
    for name, choice in zip(names, chosen, strict=True):
        overridden = [*choice.dims, *choice.words, *(["the scope"] if choice.scope else [])]
        overridden += [f"the convention {key}" for key in choice.conventions]
        for what in overridden:
            if taken.setdefault(what, name) != name:
                raise UsageError(
                    f"the variants {taken[what]!r} and {name!r} both set {what}",
                    hint="choose one of them",
                )
        dims.update(choice.dims)
        words.update(choice.words)
        conventions.update(choice.conventions)
        scope = choice.scope or scope
    return dims, words, conventions, scope


def _check_dim(rule_file: RuleFile, name: str, value: Dim) -> None:
    if name not in rule_file.dims:
        near = closest(name, rule_file.dims)
        derived = name in rule_file.derived
        raise UsageError(
            f"{rule_file.model} has no dim {name!r}",
            expected=listed(rule_file.dims),
            hint=f"{name!r} is derived from other dims; set those"
            if derived
            else (f"did you mean {near!r}?" if near else None),
        )
    if _depth(value) != _depth(rule_file.dims[name]):
        raise UsageError(
            f"the dim {name!r} is of another kind",
            expected=f"something like {rule_file.dims[name]}",
            got=str(value),
        )


def _depth(value: Dim) -> int:
    """Return how deeply lists nest. Raises UsageError for what is not a whole number ≥ 0."""
    if isinstance(value, list):
        return 1 + max((_depth(item) for item in value), default=0)
    if type(value) is not int or not 0 <= value < _TOO_LARGE:
        raise UsageError(
            "a dim is a whole number, or a list of them",
            expected=f"0 or more, below {_TOO_LARGE:,}",
            got=repr(value),
        )
    return 0


def _work_out(
    rule_file: RuleFile, values: dict[str, Dim]
) -> tuple[dict[str, Scalar], Finding | None]:
    """Add the derived values and return the audio facts, up to the first that has no value.

    The second of the pair says why it has none.
    """
    where, audio = rule_file.name, {}
    try:
        for name, derived in rule_file.derived.items():
            where = rule_file.where(derived.line)
            values[name] = _value(derived, values)
        where = rule_file.name
        for key, value in rule_file.audio.items():
            audio[key] = value.evaluate(values) if isinstance(value, Expression) else value
    except RuleError as error:
        finding = error.findings[0]
        hint = finding.hint or "set dims that fit, or correct the expression"
        return audio, replace(finding, where=where, hint=hint)
    return audio, None


def _value(derived: Derived, values: Mapping[str, Value]) -> Dim:
    if isinstance(derived.value, tuple):
        return [_count(item, values) for item in derived.value]
    return _count(derived.value, values)


def _count(expression: Expression, values: Mapping[str, Value]) -> int:
    number = expression.evaluate(values)
    if number < 0:
        raise RuleError(
            f"the derived value {expression.text!r} is negative",
            code="derived",
            expected="0 or more, as of every dim",
            got=str(number),
        )
    return number


def _broken_requirements(
    rule_file: RuleFile, values: Mapping[str, Dim], allowance: Allowance
) -> list[Finding]:
    """Return a finding for each requirement that does not hold, as far as its values are known."""
    findings = []
    for requirement in rule_file.require:
        indices = with_bounds(requirement.ranges, requirement.that.names)
        bounds = (requirement.ranges[index].names for index in indices)
        names = requirement.that.names.union(*bounds) - indices
        if not names <= values.keys() and names <= {*values, *rule_file.derived}:
            continue
        try:
            breach = _breach(requirement, indices, values, allowance)
        except RuleError as error:
            where = rule_file.where(requirement.line)
            findings.append(replace(error.findings[0], where=where))
            continue
        except EndlessError:
            what = "the requirements are to hold for too many values of indices"
            findings.append(Finding("range", what, rule_file.where(requirement.line)))
            break
        if breach is not None:
            findings.append(
                Finding(
                    "require",
                    f"the dims break a requirement: {requirement.because}",
                    rule_file.where(requirement.line),
                    expected=requirement.that.text,
                    got=", ".join(f"{name} = {breach[name]}" for name in sorted(breach)),
                    hint="set dims that fit with --set or --dims",
                )
            )
    return first_few(findings, rule_file.name)


def _breach(
    requirement: Requirement,
    indices: frozenset[str],
    values: Mapping[str, Dim],
    allowance: Allowance,
) -> dict[str, Value] | None:
    """Return what is mentioned where the requirement first does not hold, or None."""
    order = [name for name in requirement.ranges if name in indices]
    for chosen in index_values(requirement.ranges, order, values, allowance):
        allowance.spend(requirement.that.weight)
        if not requirement.that.evaluate(chosen):
            return {name: chosen[name] for name in requirement.that.names}
    return None
