"""Dims as users write them: ``layers=5``, ``rates=4,2,2``, or a YAML file of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from converter.errors import RuleError, SourceError, UsageError
from converter.manifest import Dim
from converter.rules import strict_yaml
from converter.strict_json import parse as parse_json

_INTEGER = re.compile(r"0|[1-9][0-9]{0,17}")


def read_dims(path: Path | None, assignments: Iterable[str]) -> dict[str, Dim]:
    """Return the dims of a YAML file, overridden by ``name=value`` assignments.

    Raises UsageError, with ``file:line`` where there is one.
    """
    dims = {} if path is None else _load(path)
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(
                "not an assignment of a dim", expected="DIM=VALUE such as layers=5", got=text
            )
        dims[name.strip()] = _value(name.strip(), value.strip())
    return dims


def by_member(dims: Mapping[str, Dim]) -> dict[str, dict[str, Dim]]:
    """Sort dims named ``member.dim`` by member. Raises UsageError for other names."""
    members: dict[str, dict[str, Dim]] = {}
    for name, value in dims.items():
        member, dot, dim = name.partition(".")
        if not dot:
            raise UsageError(
                "a dim of a bundle needs its member", expected="MEMBER.DIM=N", got=f"{name}={value}"
            )
        members.setdefault(member, {})[dim] = value
    return members


def read_prefixes(text: str) -> dict[str, str]:
    """Read ``source=prefix,source=prefix``. Raises UsageError for anything else."""
    prefixes = {}
    for part in filter(None, text.split(",")):
        source, equals, prefix = part.partition("=")
        if not equals:
            raise UsageError(
                "a prefix of a bundle needs its source", expected="SOURCE=PREFIX", got=part
            )
        prefixes[source.strip()] = prefix.strip()
    return prefixes


def _value(name: str, text: str) -> Dim:
    """Read ``5``, ``4,2,2`` (a list; ``4,`` is a list of one) or ``[[1, 3], [5]]``."""
    if _INTEGER.fullmatch(text):
        return int(text)
    parts = [part.strip() for part in text.removesuffix(",").split(",")]
    if "," in text and all(_INTEGER.fullmatch(part) for part in parts):
        return [int(part) for part in parts]
    if text.startswith("["):
        try:
            return _checked(parse_json(text, where=f"--set {name}"), f"--set {name}")
        except SourceError as error:
            raise _not_a_dim(f"--set {name}", text) from error
    raise _not_a_dim(f"--set {name}", text)


def _load(path: Path) -> dict[str, Dim]:
    try:
        document = strict_yaml.parse(strict_yaml.read(path), str(path))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except RuleError as error:
        raise UsageError.of(error.findings) from error
    if not isinstance(document.value, dict):
        raise UsageError("not a mapping of dims", where=str(path), expected="lines of name: value")
    return {
        name: _checked(value, document.where((name,))) for name, value in document.value.items()
    }


def _checked(value: Any, where: str) -> Dim:
    if isinstance(value, list):
        return [_checked(item, where) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise _not_a_dim(where, repr(value))


def _not_a_dim(where: str, got: str) -> UsageError:
    return UsageError(
        "a dim is a whole number, or a list of them",
        where=where,
        expected="0 or more: 5, or 4,2,2, or [[1, 3], [5]]",
        got=got,
    )
