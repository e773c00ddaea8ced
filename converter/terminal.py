"""Answers drawn for a terminal: colour, tables, errors whose slots stand out.

Nothing here is used in a pipe, with NO_COLOR, on a terminal that can do nothing (TERM=dumb), or
where quiet was asked for: then plain text is written. Rich is imported when something is drawn.
"""

from __future__ import annotations

import os
import re
from typing import IO, TYPE_CHECKING, Any

import click

from converter.finding import Finding, printable
from converter.sheet import Sheet, Slots, Table

if TYPE_CHECKING:
    from rich.console import RenderableType

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
_SLOTS = {"tensor": "cyan", "expected": "green", "got": "yellow", "hint": "blue"}


def is_styled(stream: IO[Any]) -> bool:
    """Whether colour, tables and bars may be written to ``stream``."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
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
        return Text("\n").join(_slot_lines(part))
    text = Text("\n".join(map(printable, part.split("\n"))))
    for words, style in _WORDS:
        text.highlight_regex(words, style)
    return text


def _slot_lines(part: Slots) -> list[Any]:
    from rich.text import Text

    width = max((len(printable(key)) for key, _ in part.rows), default=0)
    lines, last = [], None
    for key, text in part.rows:
        shown = "" if key == last else printable(key)
        lines.append(Text.assemble("  ", (f"{shown:<{width}}", "cyan"), "  ", printable(text)))
        last = key
    return lines


def _table(part: Table) -> RenderableType:
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=bool(part.head))
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
        drawn.add_row(*(Text(printable(cell)) for cell in row))
    return drawn


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
