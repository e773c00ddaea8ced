"""Answers drawn for a terminal: colour, tables, errors whose slots stand out.

Nothing here is used in a pipe, with NO_COLOR, on a terminal that can do nothing (TERM=dumb), or
where quiet was asked for: then plain text is written. Rich is imported when something is drawn.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import click

from converter.finding import Finding, printable
from converter.sheet import Sheet, Slots, Table, keyed

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.measure import Measurement

_STYLES = {
    "shape": "green",
    "dtype": "cyan",
    "count": "dim",
    "size": "magenta",
    "model": "bold cyan",
    "bundle": "bold cyan",
    "steps": "dim",
}
# What stands out in an answer that is text alone.
_WORDS = (
    (r"\A[^\n:]+(?=: )", "bold"),
    (r"(?m)^  [a-z][a-z -]*?(?=  )", "cyan"),
    (r"\bholds\b|\bno findings\b", "green"),
    (r"\b[1-9][0-9,]* (?:differences?|findings?)\b", "red"),
    (r"→", "dim"),
)
_WORD = re.compile(r"\S+\s*|\s+")
# The part of a name up to its dots; the range of a folded name is whole.
_PIECE = re.compile(r"(?:\{[^{}\s]*\}|[^\s.])+\.*\s*|\.+\s*|\s+")
_SLOTS = {"tensor": "cyan", "expected": "green", "got": "yellow", "hint": "blue"}


def is_styled(stream: IO[Any] | None) -> bool:
    """Whether colour, tables and bars may be written to ``stream``; None: there is none."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def drawn(answer: Sheet | str) -> str:
    """Return an answer as a terminal of the width of stdout shows it, control codes included."""
    from rich.console import Console

    console = Console(force_terminal=True, highlight=False)
    with console.capture() as captured:
        for part in answer.parts if isinstance(answer, Sheet) else (answer,):
            if isinstance(part, str) or part.rows:
                console.print(_part(part), soft_wrap=not isinstance(part, Table))
    return captured.get().removesuffix("\n")


def _part(part: str | Slots | Table) -> RenderableType:
    from rich.text import Text

    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Slots):
        lines = (Text.assemble("  ", (key, "cyan"), "  ", text) for key, text in keyed(part.rows))
        return Text("\n").join(lines)
    text = Text("\n".join(map(printable, part.split("\n"))))
    for words, style in _WORDS:
        text.highlight_regex(words, style)
    return text


def _table(part: Table) -> RenderableType:
    from rich import box
    from rich.table import Table as Drawn

    drawn = Drawn(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
        show_header=bool(part.head),
    )
    head = part.head or [""] * max(map(len, part.rows), default=0)
    for number, name in enumerate(head):
        drawn.add_column(
            name,
            justify="right" if number in part.right else "left",
            style=_STYLES.get(name, ""),
            overflow="fold",
            no_wrap=number in part.right,
        )
    for row in part.rows:
        drawn.add_row(*(_Cell(printable(cell)) for cell in row))
    return drawn


@dataclass(frozen=True, slots=True)
class _Cell:
    """Text that, where it is too wide for its column, is broken behind the dots of names too."""

    text: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement
        from rich.text import Text

        return Measurement.get(console, options, Text(self.text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text("\n".join(_broken(self.text, options.max_width)))


def _broken(text: str, width: int) -> Iterator[str]:
    """Yield lines of ``width`` columns, and longer ones only where there is no place to break."""
    from rich.cells import cell_len

    line = ""
    for word in _WORD.findall(text):
        for piece in [word] if cell_len(word.rstrip()) <= width else _PIECE.findall(word):
            if line and cell_len(line + piece.rstrip()) > width:
                yield line.rstrip()
                line = ""
            line += piece
    yield line


def styled_finding(finding: Finding) -> str:
    """Return a finding as it is rendered, its severity and slots in colour."""
    colour = "yellow" if finding.severity == "warning" else "red"
    head, *lines = finding.render().split("\n")
    label = click.style(f"{finding.severity}:", fg=colour, bold=True)
    return "\n".join([f"{label} {click.style(head, bold=True)}", *map(_styled_slot, lines)])


def _styled_slot(line: str) -> str:
    match = re.fullmatch(r"  ([a-z]+):( *)(.*)", line)
    if match is None:
        return line
    name, gap, value = match.groups()
    return f"  {click.style(f'{name}:', dim=True)}{gap}{click.style(value, fg=_SLOTS.get(name))}"
