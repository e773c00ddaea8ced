"""YAML read strictly: every value keeps its line, and nothing is guessed.

Scalars follow the YAML 1.2 core schema; what YAML 1.1 and 1.2 read differently is an error
until it is quoted. Duplicate keys, anchors, aliases, tags and merge keys are errors.
"""

from __future__ import annotations

import codecs
import errno
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TypeAlias

import yaml

from converter.errors import RuleError

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | float | bool | None"
Path: TypeAlias = "tuple[str | int, ...]"

MAX_BYTES = 256 << 10
MAX_DEPTH = 32

_QUOTE = "quote it: inside [ ] or { }, and at the start of a value, quote what holds { } [ ] ,"
_LOOK = "look at the indentation and the quotes here and on the lines before"
_FIELDS = "docs/rules.md lists the fields"
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_YES_NO = frozenset({"yes", "no", "on", "off"})
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # those by which PyYAML counts
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TRAP = re.compile(
    r"[-+]?0[0-9_]+|0[oxb][0-9a-fA-F_]+|[-+]?[0-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?"
    r"|[-+]?[0-9]+(?::[0-9]{1,2})+(?:\.[0-9]*)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?"
)
# The longest first: that of UTF-32 begins as that of UTF-16 does.
_MARKS = (
    (codecs.BOM_UTF8, "UTF-8"),
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SHOWN_CHARS = 200
_MAX_DIGITS = 300  # more than any number that is meant; a float64 has at most 309 before the point


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its value, and the line (from 1) on which each path of it starts."""

    name: str
    value: Plain
    lines: Mapping[Path, int]

    def where(self, path: Path) -> str:
        """Return ``file:line`` of the value at ``path``, or of the nearest value that holds it."""
        return f"{self.name}:{self.line(path)}"

    def line(self, path: Path) -> int:
        """Return the line of the value at ``path``, or of the nearest value that holds it."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def display_name(path: FilePath) -> str:
    """Return the path as seen from the working directory, when it lies below it."""
    resolved, here = path.resolve(), FilePath.cwd()
    return str(resolved.relative_to(here) if resolved.is_relative_to(here) else path)


def read(path: FilePath) -> bytes:
    """Return the bytes of a file, as far as ``parse`` needs them; raises OSError."""
    try:
        status = os.stat(path)
    except ValueError as error:  # a NUL, which no path can hold
        raise OSError(errno.EINVAL, str(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def parse(text: bytes, name: str) -> Document:
    """Parse one YAML document; ``name`` stands for the file in errors. Raises RuleError."""
    if len(text) > MAX_BYTES:
        raise RuleError(
            "the file is too large",
            code="yaml",
            where=name,
            expected=f"at most {MAX_BYTES:,} bytes",
            got="more",
            hint="see that this is the file that is meant",
        )
    _refuse_mark(text, name)
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise RuleError(
            f"not UTF-8: {error.reason}",
            code="yaml",
            where=f"{name}:{line}",
            expected="text in UTF-8",
            got=f"the byte {text[error.start]:#04x}",
            hint="save the file as UTF-8",
        ) from error
    lines = _LINE_BREAK.split(decoded)
    try:
        loader = yaml.BaseLoader(decoded)
    except yaml.reader.ReaderError as error:
        line = len(_LINE_BREAK.findall(decoded, 0, error.position))
        raise _not_yaml(name, lines, line, f"the character {chr(error.character)!a}") from error
    try:
        reader = _Reader(name, lines, iter(loader.get_event, None))
        return Document(name, reader.document(), reader.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = str(error.problem or error.context)
        raise _not_yaml(name, lines, mark.line if mark else 0, what) from error
    except (ValueError, OverflowError) as error:  # escapes and directives that stand for no text
        raise _not_yaml(name, lines, loader.line, str(error)) from error


def _refuse_mark(text: bytes, name: str) -> None:
    """Raise RuleError for text that begins with a byte order mark, which no editor shows."""
    found = next((encoding for mark, encoding in _MARKS if text.startswith(mark)), None)
    if found is not None:
        raise RuleError(
            f"the file begins with the byte order mark (BOM) of {found}",
            code="yaml",
            where=f"{name}:1",
            expected="text in UTF-8 without a mark",
            got=f"the bytes {text[:4].hex(' ')}",
            hint="save the file as UTF-8 without BOM",
        )


def _not_yaml(name: str, lines: list[str], number: int, what: str) -> RuleError:
    line = _text(lines, number)
    return RuleError(
        f"not YAML: {what:.{_SHOWN_CHARS}}",
        code="yaml",
        where=f"{name}:{number + 1}",
        expected="YAML 1.2",
        got=line,
        hint=_QUOTE if any(char in line for char in "{}[]") else _LOOK,
    )


def _text(lines: list[str], number: int) -> str:
    return f"{lines[min(number, len(lines) - 1)].strip():.{_SHOWN_CHARS}}"


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _is_nothing(event: yaml.Event) -> bool:
    return isinstance(event, yaml.ScalarEvent) and event.style is None and not event.value


class _Reader:
    """Builds plain values from the events of one document and notes their lines."""

    def __init__(self, name: str, text: list[str], events: Iterator[yaml.Event]) -> None:
        self.name = name
        self.text = text
        self.events = events
        self.lines: dict[Path, int] = {}

    def document(self) -> Plain:
        next(self.events)
        start = next(self.events)
        if not isinstance(start, yaml.DocumentStartEvent):
            raise self.error(start, "the file is empty", "name: value", hint=_FIELDS)
        if start.version or start.tags:
            raise self.error(start, "a directive (%)", "values alone", hint="leave it out")
        value = self.value(next(self.events), ())
        next(self.events)
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise self.error(
                after, "a second document in one file", "one", hint="give it a file of its own"
            )
        return value

    def value(self, event: yaml.Event, path: Path) -> Plain:
        self.lines.setdefault(path, _line(event))
        self.refuse_extras(event)
        if len(path) > MAX_DEPTH:
            raise self.error(
                event, "nested too deeply", f"at most {MAX_DEPTH} levels", hint="write it flatter"
            )
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path)
        assert isinstance(event, yaml.ScalarEvent)
        return self.scalar(event)

    def refuse_extras(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent):
            what = f"an alias (*{event.anchor:.{_SHOWN_CHARS}})"
            raise self.error(event, what, "values alone", hint="write the value out")
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            what = f"an anchor (&{event.anchor:.{_SHOWN_CHARS}})"
            raise self.error(event, what, "values alone", hint="write the values out")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
            what = f"a tag ({event.tag:.{_SHOWN_CHARS}})"
            raise self.error(event, what, "values alone", hint="leave it out")

    def mapping(self, start: yaml.MappingStartEvent, path: Path) -> dict[str, Plain]:
        result: dict[str, Plain] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event)
            if key in result:
                hint = f"keep one of the two; the other is on line {self.lines[*path, key]}"
                what = f"the key {key!r:.{_SHOWN_CHARS}} stands twice"
                raise self.error(event, what, "each key once", hint=hint)
            here = (*path, key)
            self.lines[here] = _line(event)
            held = next(self.events)
            result[key] = self.value(held, here)
            if start.flow_style and len(result) == 1 and _is_nothing(held):
                what = f"{{{key:.{_SHOWN_CHARS}}}} is read as a mapping"
                raise self.error(event, what, "text", hint=_QUOTE)
        return result

    def key(self, event: yaml.Event) -> str:
        self.refuse_extras(event)
        if not isinstance(event, yaml.ScalarEvent):
            raise self.error(event, "a key that is not text", "text", hint=_QUOTE)
        if event.value == "<<" and event.style is None:
            raise self.error(event, "a merge key (<<)", "text", hint="write the values out")
        key = self.scalar(event)
        if not isinstance(key, str):
            what = f"the key {event.value!r:.{_SHOWN_CHARS}} is not text"
            raise self.error(event, what, "text", hint="quote it")
        return key

    def sequence(self, path: Path) -> list[Plain]:
        result: list[Plain] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            result.append(self.value(event, (*path, len(result))))
        return result

    def scalar(self, event: yaml.ScalarEvent) -> str | int | float | bool | None:
        text = str(event.value)
        if any("\ud800" <= char <= "\udfff" for char in text):
            what = "half a surrogate pair, which is no character"
            raise self.error(event, what, "whole characters", hint="write the character itself")
        if event.style is not None:
            return text
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if text.lower() in _YES_NO or _TRAP.fullmatch(text):
            raise self.error(
                event,
                f"{text!r:.{_SHOWN_CHARS}} is read differently by different YAML versions",
                "a value that all of them read alike",
                hint="quote it if it is text; else write true, false or a plain decimal number",
            )
        if not _FLOAT.fullmatch(text):
            return text
        if len(text) > _MAX_DIGITS or math.isinf(float(text)):
            what = f"{text:.20}… is too large a number"
            raise self.error(
                event, what, "a number that fits in 64 bits", hint="look at its digits"
            )
        return int(text) if _INTEGER.fullmatch(text) else float(text)

    def error(self, event: yaml.Event, what: str, expected: str, *, hint: str) -> RuleError:
        line = _line(event)
        return RuleError(
            what,
            code="yaml",
            where=f"{self.name}:{line}",
            expected=expected,
            got=_text(self.text, line - 1),
            hint=hint,
        )
