"""All of a rule but names: its steps and shapes, for some values of its indices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from converter.errors import RuleError, StepError
from converter.header import MAX_RANK
from converter.rules.expression import Expression, Value
from converter.rules.rule_file import Rule, RuleFile, StepCall, Target
from converter.spec import Shape, TensorSpec
from converter.steps.build import build_all
from converter.steps.chain import infer_chain, preimage_chain
from converter.steps.step import Step

_MOST_ELEMENTS = 1 << 56  # of 64 bits they are 2^62 bits, which the container still counts


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """All that a unit is but names, shared by the units of a rule for which it is the same.

    ``shapes`` are those that the rule declares for its targets; ``source_shapes`` are those that
    the sources must then have, or None where the steps leave that open. ``calls`` has, for each
    step, the call of the rule that it comes from: a short way stands for several. ``dtype`` is the
    first that the rule accepts and the steps take, as far as that is known.
    """

    rule: Rule
    steps: tuple[Step, ...]
    shapes: tuple[Shape, ...]
    source_shapes: tuple[Shape, ...] | None
    calls: tuple[StepCall, ...]
    dtype: str


def make_form(
    rule_file: RuleFile,
    rule: Rule,
    values: Mapping[str, Value],
    shapes: Sequence[Shape],
    *,
    sources: int,
    names: Sequence[str],
) -> Form:
    """Return the form of a rule for some values.

    ``shapes`` are those of its targets, whose names are for errors; ``sources`` is how many sources
    it has. Raises RuleError for a step that cannot be built, and shapes that cannot add up.
    """
    built = [(call, step) for call in rule.steps for step in _steps(rule_file, call, values)]
    steps = tuple(step for _, step in built)
    targets = tuple(zip(names, shapes, strict=True))
    source_shapes, dtype = _source_shapes(rule_file, rule, sources, steps, targets)
    calls = tuple(call for call, _ in built)
    return Form(rule, steps, tuple(shapes), source_shapes, calls, dtype)


def target_shape(rule_file: RuleFile, target: Target, values: Mapping[str, Value]) -> Shape:
    """Return the shape that a target is declared to have; raises RuleError."""
    where = rule_file.where(target.line)
    try:
        shape = tuple(length.evaluate(values) for length in target.shape)
    except RuleError as error:
        raise RuleError.of([replace(f, where=where) for f in error.findings]) from error
    if min(shape, default=0) < 0 or len(shape) > MAX_RANK or _elements(shape) > _MOST_ELEMENTS:
        raise RuleError(
            "not the shape of a canonical tensor",
            code="target",
            where=where,
            tensor=target.name.text,
            expected=f"at most {MAX_RANK} lengths, each 0 or more, of 2^56 elements at most",
            got=str(list(shape)),
        )
    return shape


def _elements(shape: Shape) -> int:
    """Return what readers that multiply in order make of a shape, an overflow before a zero too."""
    return math.prod(filter(None, shape))


def _steps(rule_file: RuleFile, call: StepCall, values: Mapping[str, Value]) -> tuple[Step, ...]:
    parameters: dict[str, object] = {}
    try:
        for name, value in call.parameters.items():
            if isinstance(value, Expression):
                parameters[name] = value.evaluate(values)
            elif isinstance(value, tuple):
                parameters[name] = tuple(item.evaluate(values) for item in value)
            elif isinstance(value, Mapping):
                parameters[name] = {key: item.evaluate(values) for key, item in value.items()}
            else:
                parameters[name] = value
        return build_all(call.name, parameters)
    except RuleError as error:
        where = rule_file.where(call.line)
        raise RuleError.of([replace(f, where=where) for f in error.findings]) from error


def _source_shapes(
    rule_file: RuleFile,
    rule: Rule,
    count: int,
    steps: tuple[Step, ...],
    targets: tuple[tuple[str, Shape], ...],
) -> tuple[tuple[Shape, ...] | None, str]:
    """Work the declared shapes back through the steps, and forth again; with which dtype."""
    declared = tuple(shape for _, shape in targets)
    try:
        shapes = preimage_chain(steps, declared, sources=count)
        if shapes is None:
            return None, rule.dtypes[0]
        inferred, dtype = _inferred(rule, steps, shapes)
    except StepError as error:
        raise _shapes_error(rule_file, rule, targets, error) from error
    if inferred != declared:
        elsewhere = StepError("the steps lead elsewhere")
        raise _shapes_error(rule_file, rule, targets, elsewhere)
    return shapes, dtype


def _inferred(
    rule: Rule, steps: tuple[Step, ...], shapes: tuple[Shape, ...]
) -> tuple[tuple[Shape, ...], str]:
    """Return what the steps make of ``shapes``, of the first dtype that they take."""
    refused: StepError | None = None
    for dtype in rule.dtypes:
        try:
            specs = infer_chain(steps, tuple(TensorSpec(dtype, shape) for shape in shapes))
        except StepError as error:
            refused = refused or error
        else:
            return tuple(spec.shape for spec in specs), dtype
    raise refused or StepError("no dtype is accepted")


def _shapes_error(
    rule_file: RuleFile, rule: Rule, targets: tuple[tuple[str, Shape], ...], error: StepError
) -> RuleError:
    finding = error.findings[0]
    return RuleError(
        f"the shapes cannot add up: {finding.what}",
        code="shape",
        where=rule_file.where(rule.steps[0].line if rule.steps else rule.line),
        tensor=", ".join(f"{name} {list(shape)}" for name, shape in targets),
        expected=finding.expected,
        got=finding.got,
        hint=finding.hint,
    )
