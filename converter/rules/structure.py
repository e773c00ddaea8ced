"""The structure of a rule file, checked by its JSON Schema, with every error at its line."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema
from jsonschema.exceptions import ValidationError, relevance

from converter import resources
from converter.finding import Finding, closest, first_few
from converter.rules.strict_yaml import Document
from converter.steps import STEPS, SUGAR

_DOCS = "docs/rules.md and docs/bundles.md say what may stand here"
_SHOWN_CHARS = 200
_LAST = 1 << 60  # after every line
_KINDS: dict[type, str] = {dict: "a mapping", list: "a list"}


def check(document: Document, schema: str) -> list[Finding]:
    """Return what is wrong with the structure of a rule or bundle file, in line order."""
    errors = _validator(schema).iter_errors(document.value)
    findings = (finding for error in errors for finding in _findings(document, _deepest(error)))
    found = dict.fromkeys(first_few(findings, document.name))
    return sorted(found, key=lambda finding: _line(finding.where))


def _validator(schema: str) -> Any:
    """Return a validator to which 4.0 is no integer, unlike to JSON Schema.

    Whether items are unique it finds out without comparing each with each.
    """
    draft = jsonschema.Draft202012Validator
    types = draft.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    extend: Any = jsonschema.validators.extend
    own = {"uniqueItems": _unique_items}
    return extend(draft, own, type_checker=types)(resources.schema(schema))


def _unique_items(
    validator: Any, unique: bool, instance: object, schema: object
) -> Iterator[ValidationError]:
    if unique and isinstance(instance, list) and len(set(map(repr, instance))) != len(instance):
        yield ValidationError("an item stands twice")


def _line(where: str | None) -> int:
    line = (where or "").rpartition(":")[2]
    return int(line) if line.isdecimal() else _LAST


def _deepest(error: ValidationError) -> ValidationError:
    """Follow an anyOf or oneOf into the branch that the author most likely meant."""
    while error.context:
        error = max(error.context, key=lambda inner: (len(inner.absolute_path), relevance(inner)))
    return error


def _findings(document: Document, error: ValidationError) -> Iterator[Finding]:
    path = tuple(error.absolute_path)
    instance: Any = error.instance
    if "propertyNames" in error.absolute_schema_path:
        path = (*path, instance)
    where = document.where(path)
    if error.validator == "additionalProperties":
        yield from _unknown_fields(document, error)
    elif error.validator == "required":  # an error of its own for every field that is missing
        required: Any = error.validator_value
        for missing in required:
            if missing not in instance:
                yield Finding(
                    "field",
                    f"{_place(path)} lacks the field {missing!r}",
                    where,
                    expected=_described_field(error.schema, missing),
                    got=f"the fields {', '.join(map(str, instance)) or '(none)':.{_SHOWN_CHARS}}",
                    hint="add it",
                )
    elif path[-2:-1] == ("steps",) and isinstance(instance, str) and not _is_step(instance):
        yield _unknown_step(instance, where, (*STEPS, *SUGAR))
    else:
        yield Finding(
            "field",
            f"{_place(path)} does not fit the schema",
            where,
            expected=_expected(error),
            got=_described(error.instance),
            hint=_DOCS,
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
        where = document.where((*path, key))
        if is_step:
            yield _unknown_step(key, where, known)
            continue
        near = closest(key, known)
        yield Finding(
            "unknown-field",
            f"{_place(path)} has no field {key!r:.{_SHOWN_CHARS}}",
            where,
            expected=f"one of {', '.join(sorted(known))}",
            got=f"{key!r:.{_SHOWN_CHARS}}",
            hint=f"did you mean {near!r}?" if near else _DOCS,
        )


def _is_step(name: str) -> bool:
    return name in STEPS or name in SUGAR


def _unknown_step(name: str, where: str, known: Iterable[str]) -> Finding:
    near = closest(name, known)
    return Finding(
        "unknown-step",
        f"unknown step {name!r:.{_SHOWN_CHARS}}",
        where,
        expected=f"one of {', '.join(sorted(known))}",
        got=f"{name!r:.{_SHOWN_CHARS}}",
        hint=f"did you mean {near!r}?" if near else _DOCS,
    )


def _described_field(schema: Any, name: str) -> str:
    """Return what the schema says of a field, whether it says so itself or by reference."""
    return f"{name}: {schema.get('properties', {}).get(name, {}).get('description', 'a value')}"


def _place(path: tuple[str | int, ...]) -> str:
    return f"{'.'.join(map(str, path)) or 'the file':.{_SHOWN_CHARS}}"


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
        case "minItems" | "minLength" | "minProperties" | "minimum":
            return f"at least {wanted}"
        case "maxItems" | "maxProperties":
            return f"at most {wanted}"
        case "uniqueItems":
            return "each only once"
        case _:
            return f"{error.message:.{_SHOWN_CHARS}}"


def _described(value: Any) -> str:
    return _KINDS[type(value)] if isinstance(value, dict | list) else reprlib.repr(value)
