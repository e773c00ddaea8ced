"""The structure of a rule file, checked by its JSON Schema, with every error at its line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
from jsonschema.exceptions import ValidationError, relevance

from converter import resources
from converter.finding import Finding, closest
from converter.rules.strict_yaml import Document

_KINDS: dict[type, str] = {dict: "a mapping", list: "a list"}


def check(document: Document, schema: str) -> list[Finding]:
    """Return what is wrong with the structure of a rule or bundle file, in line order."""
    validator = jsonschema.Draft202012Validator(resources.schema(schema))
    errors = [_deepest(error) for error in validator.iter_errors(document.value)]
    findings = [finding for error in errors for finding in _findings(document, error)]
    return sorted(findings, key=lambda finding: _line(finding.where))


def _line(where: str | None) -> int:
    return int((where or ":0").rpartition(":")[2])


def _deepest(error: ValidationError) -> ValidationError:
    """Follow an anyOf or oneOf into the branch that the author most likely meant."""
    while error.context:
        error = max(error.context, key=lambda inner: (len(inner.absolute_path), relevance(inner)))
    return error


def _findings(document: Document, error: ValidationError) -> Iterator[Finding]:
    path = tuple(error.absolute_path)
    where = document.where(path)
    if error.validator == "additionalProperties":
        yield from _unknown_fields(document, error)
    elif error.validator == "required":
        required: Any = error.validator_value
        instance: Any = error.instance
        missing = next(key for key in required if key not in instance)
        yield Finding("field", f"{_place(path)} lacks the field {missing!r}", where)
    else:
        yield Finding(
            "field",
            f"{_place(path)} does not fit the schema",
            where,
            expected=_expected(error),
            got=_described(error.instance),
        )


def _unknown_fields(document: Document, error: ValidationError) -> Iterator[Finding]:
    path = tuple(error.absolute_path)
    schema: Any = error.schema
    instance: Any = error.instance
    known = list(schema.get("properties", ()))
    is_step = len(path) >= 2 and path[-2] == "steps"
    for key in instance:
        if key in known:
            continue
        near = closest(key, known)
        yield Finding(
            "unknown-step" if is_step else "unknown-field",
            f"unknown step {key!r}" if is_step else f"{_place(path)} has no field {key!r}",
            document.where((*path, key)),
            expected=f"one of {', '.join(sorted(known))}",
            hint=f"did you mean {near!r}?" if near else None,
        )


def _place(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path)) or "the file"


def _expected(error: ValidationError) -> str:
    wanted: Any = error.validator_value
    schema: Any = error.schema
    match error.validator:
        case "enum":
            return f"one of {', '.join(map(str, wanted))}"
        case "const":
            return repr(wanted)
        case "type":
            return " or ".join(wanted) if isinstance(wanted, list) else str(wanted)
        case "pattern":
            return str(schema.get("description", f"text matching {wanted}"))
        case _:
            return error.message


def _described(value: Any) -> str:
    return _KINDS[type(value)] if isinstance(value, dict | list) else repr(value)
