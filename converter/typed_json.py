"""Readers of parsed JSON: each returns the value it is given, or raises ``WrongJsonError``.

``sequence``, ``mapping`` and ``record`` make readers of readers:

    >>> sequence(size)([1, 2])
    (1, 2)

``read_back`` reads a whole file that this package wrote, and takes nothing but its very bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from itertools import zip_longest
from typing import Any, TypeAlias, TypeVar

from converter import strict_json
from converter.canonical import FORMAT_VERSION
from converter.errors import SourceError

T = TypeVar("T")

Reader: TypeAlias = Callable[[object], Any]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHANGED = "the file was changed after it was written; convert the source again"
_EXCERPT_BYTES = 40


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


def matching(pattern: re.Pattern[str], expected: str) -> Callable[[object], str]:
    """Make a reader of text that all of a pattern matches; ``expected`` says what that is."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _wrong(expected, value)
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


def read_back(
    data: bytes, what: str, read: Callable[[object], T], dump: Callable[[T], bytes], *, where: str
) -> T:
    """Read a file of this package back; ``what`` is what it is, ``where`` names it in errors.

    Raises SourceError when it is not strict JSON, of a format version that is not known, or not
    to the byte what ``dump`` writes.
    """
    document = strict_json.parse(data, where=where)
    if not isinstance(document, dict) or "format" not in document:
        raise SourceError(
            f"not a {what}", code=what, where=where, expected="an object with a 'format'"
        )
    version = document.pop("format")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise SourceError(
            "a format version that this program does not know",
            code="format",
            where=where,
            expected=str(FORMAT_VERSION),
            got=repr(version),
            hint="convert the source again with this version, or install the version that wrote it",
        )
    try:
        value = read(document)
        written = dump(value)
    except RecursionError as error:
        too_deep = f"not a {what}: it nests too deeply"
        raise SourceError(too_deep, code=what, where=where, hint=_CHANGED) from error
    except WrongJsonError as error:
        place = " / ".join(error.path)
        raise SourceError(
            f"not a {what}, at {place}" if place else f"not a {what}",
            code=what,
            where=where,
            tensor=error.path[1] if len(error.path) > 1 and error.path[0] == "tensors" else None,
            expected=error.expected,
            got=error.got,
            hint=_CHANGED,
        ) from error
    _require_bytes(written, data, what, where)
    return value


def first_difference(expected: bytes, got: bytes) -> tuple[int, bytes, bytes]:
    """Return the number, from 1, of the first line in which two texts differ, and both lines."""
    pairs = zip_longest(expected.split(b"\n"), got.split(b"\n"))
    number, pair = next((n, pair) for n, pair in enumerate(pairs, start=1) if pair[0] != pair[1])
    return number, pair[0] or b"", pair[1] or b""


def _require_bytes(expected: bytes, got: bytes, what: str, where: str) -> None:
    """Raise SourceError, with the first line that differs, unless both are the same."""
    if expected == got:
        return
    number, want, have = first_difference(expected, got)
    shorter = min(len(want), len(have))
    at = next((n for n in range(shorter) if want[n] != have[n]), shorter)
    raise SourceError(
        f"not written as a {what} is, from character {at + 1} of this line on",
        code=what,
        where=f"{where}:{number}",
        expected=repr(want[at : at + _EXCERPT_BYTES])[1:],
        got=repr(have[at : at + _EXCERPT_BYTES])[1:],
        hint=_CHANGED,
    )
