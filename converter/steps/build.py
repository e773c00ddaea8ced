"""Steps by name: what the fields of each are, and a step from the values of its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, TypeAlias, get_args

from converter.errors import RuleError
from converter.finding import Finding, closest
from converter.steps import STEPS, SUGAR
from converter.steps.step import QkvLayout, RopeOrder, Step, Sugar

ParameterKind: TypeAlias = Literal[
    "integer", "integers", "sizes", "number", "flag", "text", "word", "dtype"
]

# By the type of the dataclass field, as its file spells it.
_KINDS: Mapping[str, ParameterKind] = {
    "int": "integer",
    "int | None": "integer",
    "tuple[int, int]": "integers",
    "tuple[int, ...]": "integers",
    "AxisSizes": "sizes",
    "Number": "number",
    "bool": "flag",
    "str": "text",
    "str | None": "text",
    "QkvLayout": "word",
    "RopeOrder": "word",
    "DTypeName": "dtype",
}

_WORDS: Mapping[str, tuple[str, ...]] = {
    "QkvLayout": get_args(QkvLayout),
    "RopeOrder": get_args(RopeOrder),
}

_EXPECTED: Mapping[ParameterKind, str] = {
    "integer": "an integer",
    "integers": "a list of integers",
    "sizes": "names, each with an integer, such as {head: 8}",
    "number": "a number",
    "flag": "true or false",
    "text": "text",
    "dtype": "the name of a dtype, such as F32",
}


def parameters(name: str) -> Mapping[str, ParameterKind]:
    """Return the fields of the step, or short way, called ``name`` and the kind of each.

    ``integer``, ``integers`` and ``sizes`` may be written as expressions; the others are literal.
    Raises RuleError for a step that does not exist.

    >>> parameters("split")
    {'dim': 'integer', 'sizes': 'integers'}
    """
    return {word: _KINDS[str(field.type)] for word, field in _fields(_named(name)).items()}


def build(name: str, params: Mapping[str, object]) -> Step:
    """Return the step called ``name`` with these values of its fields; a list may be a tuple.

    Raises RuleError, with a finding for each, when the step does not exist, when a field is
    unknown, missing or of the wrong kind, or when the step refuses a value.

    >>> build("split", {"dim": 0, "sizes": [4, 2]})
    Split(dim=0, sizes=(4, 2))
    """
    if name not in STEPS:
        raise _unknown_step(name, STEPS)
    construct: Callable[..., Step] = STEPS[name]
    return construct(**_values(name, params))


def build_all(name: str, params: Mapping[str, object]) -> tuple[Step, ...]:
    """Return the one step called ``name``, or those that the short way of this name stands for.

    Raises RuleError as ``build``.

    >>> build_all("merge_shards", {"dim": 0})
    (Concat(dim=0),)
    """
    if name not in SUGAR:
        return (build(name, params),)
    construct: Callable[..., Sugar] = SUGAR[name]
    return construct(**_values(name, params)).expansion()


def _named(name: str) -> type[Step] | type[Sugar]:
    found: Mapping[str, type[Step] | type[Sugar]] = {**STEPS, **SUGAR}
    if name not in found:
        raise _unknown_step(name, found)
    return found[name]


def _fields(step_type: type[Step] | type[Sugar]) -> dict[str, Field[Any]]:
    """Return the fields by the words that rule files have for them: Python keeps some itself."""
    return {field.name.removesuffix("_"): field for field in fields(step_type)}


def _values(name: str, params: Mapping[str, object]) -> dict[str, object]:
    """Return the arguments of a step. Raises RuleError with all that is wrong with them."""
    known = _fields(_named(name))
    findings = [_unknown(name, word, known) for word in params if word not in known]
    values: dict[str, object] = {}
    for word, field in known.items():
        kind = _KINDS[str(field.type)]
        words = _WORDS.get(str(field.type), ())
        expected = " or ".join(words) or _EXPECTED[kind]
        if word not in params:
            if field.default is MISSING:
                findings.append(_wrong(f"{name}: {word} is missing", expected, "nothing"))
            continue
        value = params[word]
        if not _is_kind(value, kind, words):
            findings.append(_wrong(f"{name}: {word} is not {expected}", expected, repr(value)))
        values[field.name] = _frozen(value)
    if findings:
        raise RuleError.of(findings)
    return values


def _frozen(value: object) -> object:
    if isinstance(value, Mapping):
        return tuple(value.items())
    return tuple(value) if isinstance(value, list) else value


def _is_kind(value: object, kind: ParameterKind, words: tuple[str, ...] = ()) -> bool:
    if kind == "integers":
        return isinstance(value, list | tuple) and all(_is_kind(item, "integer") for item in value)
    if kind == "sizes":
        return isinstance(value, Mapping) and all(
            isinstance(axis, str) and _is_kind(size, "integer") for axis, size in value.items()
        )
    if kind == "flag" or isinstance(value, bool):
        return kind == "flag" and isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int)
    if kind == "number":
        return isinstance(value, int | float)
    return isinstance(value, str) and (kind != "word" or value in words)


def _unknown_step(name: str, known: Mapping[str, object]) -> RuleError:
    near = closest(name, known)
    return RuleError(
        f"unknown step {name!r}",
        expected=f"one of {', '.join(known)}",
        got=repr(name),
        hint=f"did you mean {near!r}?" if near else None,
    )


def _unknown(name: str, field: str, known: Mapping[str, object]) -> Finding:
    near = closest(field, known)
    return Finding(
        code=RuleError.default_code,
        what=f"{name}: unknown field {field!r}",
        expected=f"fields {', '.join(known)}",
        got=repr(field),
        hint=f"did you mean {near!r}?" if near else None,
    )


def _wrong(what: str, expected: str, got: str) -> Finding:
    return Finding(code=RuleError.default_code, what=what, expected=expected, got=got)
