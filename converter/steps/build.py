"""Steps by name: what the fields of each are, and a step from the values of its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Literal, TypeAlias

from converter.errors import RuleError
from converter.finding import Finding, closest
from converter.steps import STEPS
from converter.steps.step import Step

ParameterKind: TypeAlias = Literal["integer", "integers", "number", "text", "dtype"]

# By the type of the dataclass field, as its file spells it.
_KINDS: Mapping[str, ParameterKind] = {
    "int": "integer",
    "tuple[int, int]": "integers",
    "tuple[int, ...]": "integers",
    "Number": "number",
    "str": "text",
    "str | None": "text",
    "DTypeName": "dtype",
}

_EXPECTED: Mapping[ParameterKind, str] = {
    "integer": "an integer",
    "integers": "a list of integers",
    "number": "a number",
    "text": "text",
    "dtype": "the name of a dtype, such as F32",
}


def parameters(name: str) -> Mapping[str, ParameterKind]:
    """Return the fields of the step called ``name`` and the kind of each.

    ``integer`` and ``integers`` may be written as expressions; the others are literal. Raises
    RuleError for a step that does not exist.

    >>> parameters("split")
    {'dim': 'integer', 'sizes': 'integers'}
    """
    return {field.name: _KINDS[str(field.type)] for field in fields(_step_type(name))}


def build(name: str, params: Mapping[str, object]) -> Step:
    """Return the step called ``name`` with these values of its fields; a list may be a tuple.

    Raises RuleError, with a finding for each, when the step does not exist, when a field is
    unknown, missing or of the wrong kind, or when the step refuses a value.

    >>> build("split", {"dim": 0, "sizes": [4, 2]})
    Split(dim=0, sizes=(4, 2))
    """
    step_type = _step_type(name)
    kinds = parameters(name)
    findings = [_unknown(name, field, kinds) for field in params if field not in kinds]
    for field in fields(step_type):
        kind = kinds[field.name]
        if field.name in params:
            value = params[field.name]
            if not _is_kind(value, kind):
                findings.append(
                    _wrong(f"{name}: {field.name} is not {_EXPECTED[kind]}", kind, value)
                )
        elif field.default is MISSING:
            findings.append(_wrong(f"{name}: {field.name} is missing", kind, None))
    if findings:
        raise RuleError.of(findings)
    construct: Callable[..., Step] = step_type
    return construct(
        **{
            field: tuple(value) if isinstance(value, list) else value
            for field, value in params.items()
        }
    )


def _step_type(name: str) -> type[Step]:
    if name not in STEPS:
        near = closest(name, STEPS)
        raise RuleError(
            f"unknown step {name!r}",
            expected=f"one of {', '.join(STEPS)}",
            got=repr(name),
            hint=f"did you mean {near!r}?" if near else None,
        )
    return STEPS[name]


def _is_kind(value: object, kind: ParameterKind) -> bool:
    if kind == "integers":
        return isinstance(value, list | tuple) and all(_is_kind(item, "integer") for item in value)
    if isinstance(value, bool):
        return False
    if kind == "integer":
        return isinstance(value, int)
    if kind == "number":
        return isinstance(value, int | float)
    return isinstance(value, str)


def _unknown(name: str, field: str, kinds: Mapping[str, ParameterKind]) -> Finding:
    near = closest(field, kinds)
    return Finding(
        code=RuleError.default_code,
        what=f"{name}: unknown field {field!r}",
        expected=f"fields {', '.join(kinds)}",
        got=repr(field),
        hint=f"did you mean {near!r}?" if near else None,
    )


def _wrong(what: str, kind: ParameterKind, value: object) -> Finding:
    return Finding(
        code=RuleError.default_code,
        what=what,
        expected=_EXPECTED[kind],
        got="nothing" if value is None else repr(value),
    )
