"""What a network is built from: the dims and numeric conventions of a manifest, typed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from converter.errors import UsageError
from converter.finding import Finding
from converter.manifest import ModelRecord

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def read_config(kind: type[Config], model: ModelRecord) -> Config:
    """Fill the dataclass ``kind`` from the manifest, each field under its own name.

    A field of type ``int`` is a dim, zero or more; ``tuple[int, ...]`` is a dim that is a list,
    and tuples nest as lists do. A field of type ``float`` is a convention, a positive finite
    number. Raises UsageError with one finding for every field that is not.
    """
    types = get_type_hints(kind)
    values: dict[str, object] = {}
    findings: list[Finding] = []
    for field in fields(kind):
        wanted = types[field.name]
        group: Mapping[str, object] = model.conventions if wanted is float else model.dims
        value = group.get(field.name)
        if _fits(wanted, value):
            values[field.name] = _typed(wanted, value)
        else:
            findings.append(_finding(model.name, field.name, value, wanted))
    if findings:
        raise UsageError.of(findings)
    return kind(**values)


def _fits(wanted: Any, value: object) -> bool:
    if wanted is float:
        return _is_positive(value)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return isinstance(value, list) and all(_fits(get_args(wanted)[0], item) for item in value)


def _is_positive(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > 0
    )


def _typed(wanted: Any, value: Any) -> object:
    """Return a value that fits as the type wanted: lists become tuples."""
    if isinstance(value, list):
        return tuple(_typed(get_args(wanted)[0], item) for item in value)
    return wanted(value)


def _finding(model: str, name: str, value: object, wanted: Any) -> Finding:
    word = "convention" if wanted is float else "dim"
    return Finding(
        code=word,
        what=f"the network of {model!r} needs the {word} {name!r}",
        expected=_describe(wanted),
        got="nothing" if value is None else repr(value),
    )


def _describe(wanted: Any) -> str:
    if wanted is float:
        return "a positive number"
    if wanted is int:
        return "an integer, zero or more"
    return "a list of integers" if get_args(wanted)[0] is int else "a list of lists of integers"
