"""Readers of parsed JSON: each returns the value it is given, or raises ``WrongJsonError``.

``sequence``, ``mapping`` and ``record`` make readers of readers:

    >>> sequence(size)([1, 2])
    (1, 2)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Reader: TypeAlias = Callable[[object], Any]

_SHA256 = re.compile(r"[0-9a-f]{64}")


class WrongJsonError(Exception):
    """A value is not what it should be; ``path`` leads to it, outermost first."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(expected, got)
        self.path: list[str] = []
        self.expected = expected
        self.got = got


def text(value: object) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise _wrong("text", value)
    return value


def size(value: object) -> int:
    """Read an integer that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _wrong("an integer from 0 on", value)
    return value


def real(value: object) -> float:
    """Read a number that is written as a float."""
    if not isinstance(value, float):
        raise _wrong("a number with a point", value)
    return value


def sha256(value: object) -> str:
    """Read a digest."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise _wrong("64 lower-case hexadecimal digits", value)
    return value


def scalar(value: object) -> str | int | float | bool | None:
    """Read anything but a list or an object."""
    if isinstance(value, (list, dict)):
        raise _wrong("text, a number, true, false or null", value)
    assert value is None or isinstance(value, (str, int, float))
    return value


def one_of(words: Collection[str]) -> Callable[[object], str]:
    """Make a reader of some words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise _wrong(f"one of {', '.join(words)}", value)
        return value

    return read


def sequence(reader: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    """Make a reader of lists."""

    def read(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise _wrong("a list", value)
        return tuple(_inside(str(number), reader, item) for number, item in enumerate(value))

    return read


def mapping(reader: Callable[[object], T]) -> Callable[[object], dict[str, T]]:
    """Make a reader of objects whose values are all alike."""
    return lambda value: {key: _inside(key, reader, item) for key, item in members(value).items()}


def record(
    make: Callable[..., T], *, optional: Collection[str] = (), **readers: Reader
) -> Callable[[object], T]:
    """Make a reader of objects that have exactly these members, given to ``make`` by name."""

    def read(value: object) -> T:
        found = members(value)
        for key in readers:
            if key not in found and key not in optional:
                raise WrongJsonError(f"a member {key!r}", "none")
        for key in found:
            if key not in readers:
                raise WrongJsonError(f"no members but {', '.join(readers)}", f"{key!r:.60}")
        return make(**{key: _inside(key, readers[key], item) for key, item in found.items()})

    return read


def members(value: object) -> dict[str, object]:
    """Read an object."""
    if not isinstance(value, dict):
        raise _wrong("an object", value)
    return value


def _inside(key: str, reader: Callable[[object], T], value: object) -> T:
    try:
        return reader(value)
    except WrongJsonError as flaw:
        flaw.path.insert(0, key)
        raise


def _wrong(expected: str, value: object) -> WrongJsonError:
    return WrongJsonError(expected, f"{value!r:.60}")
