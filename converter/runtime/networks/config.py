"""What a network is built from: the dims and numeric conventions of a manifest, typed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar, get_type_hints

from converter.errors import UsageError
from converter.finding import Finding
from converter.manifest import ModelRecord

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def read_config(kind: type[Config], model: ModelRecord) -> Config:
    """Fill the dataclass ``kind`` from the manifest, each field under its own name.

    A field of type ``int`` is a dim, zero or more; one of type ``float`` is a convention, a
    positive finite number. Raises UsageError with one finding for every field that is not.
    """
    types = get_type_hints(kind)
    values: dict[str, int | float] = {}
    findings: list[Finding] = []
    for field in fields(kind):
        is_dim = types[field.name] is int
        group: Mapping[str, object] = model.dims if is_dim else model.conventions
        value = group.get(field.name)
        if _is_count(value) if is_dim else _is_positive(value):
            values[field.name] = types[field.name](value)
        else:
            findings.append(_finding(model.name, field.name, value, is_dim=is_dim))
    if findings:
        raise UsageError.of(findings)
    return kind(**values)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_positive(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > 0
    )


def _finding(model: str, name: str, value: object, *, is_dim: bool) -> Finding:
    return Finding(
        code="dim" if is_dim else "convention",
        what=f"the network of {model!r} needs the {'dim' if is_dim else 'convention'} {name!r}",
        expected="an integer, zero or more" if is_dim else "a positive number",
        got="nothing" if value is None else repr(value),
    )
