"""What an answer looks like: lines, slots and tables; as plain text here, drawn by ``terminal``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from converter.finding import printable

_WIDEST_COLUMN = 200  # a cell beyond it moves the rest of its own row alone
_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Slots:
    """Pairs of a key and a text; a key that repeats is shown once."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a head; the columns of ``right`` end at one place.

    Plain text has the head only where ``headed`` says that it could not be read without.
    """

    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()
    right: frozenset[int] = _NONE
    headed: bool = False


Part: TypeAlias = str | Slots | Table


@dataclass(frozen=True, slots=True)
class Sheet:
    """The parts of an answer, from top to bottom; an empty line of text parts others."""

    parts: Sequence[Part]

    def text(self) -> str:
        """Return all of it as plain text."""
        return "\n".join(line for part in self.parts for line in _lines(part))


def _lines(part: Part) -> list[str]:
    if isinstance(part, str):
        return [printable(line) for line in part.split("\n")]
    if isinstance(part, Slots):
        return slots(part.rows)
    rows = [part.head, *part.rows] if part.headed and part.rows else part.rows
    return columns(rows, right=part.right).split("\n") if rows else []


def columns(rows: Iterable[Sequence[str]], *, right: frozenset[int] = _NONE) -> str:
    """Return rows of text with their columns aligned, and nothing cut off."""
    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [min(max(map(len, cells)), _WIDEST_COLUMN) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def slots(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Indent rows of a key and a text; a key that repeats is written once."""
    return [f"  {key}  {text}" for key, text in keyed(rows)]


def keyed(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return rows with their keys of one width; one that repeats is blank."""
    kept = [(printable(key), printable(text)) for key, text in rows]
    width = max((len(key) for key, _ in kept), default=0)
    before = ["", *(key for key, _ in kept)]
    return [
        (f"{'' if key == last else key:<{width}}", text)
        for last, (key, text) in zip(before, kept, strict=False)
    ]
