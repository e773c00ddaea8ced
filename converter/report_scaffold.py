"""What was begun of a rule file."""

from __future__ import annotations

import shlex
from pathlib import Path

from converter.finding import counted, printable
from converter.report import Report
from converter.scaffold import Scaffold


def of_scaffold(made: Scaffold, out: Path | None) -> Report:
    """Report a rule file that was begun: its text, or where it was written and what is open."""
    result = {
        "model": made.model,
        "out": None if out is None else str(out),
        "tensors": made.tensors,
        "rules": made.patterns,
        "dims": dict(made.dims),
        "undecided": made.undecided,
        "text": made.text,
    }
    text = made.text.rstrip("\n") if out is None else _summary(made, out)
    return Report("scaffold", text, result)


def _summary(made: Scaffold, out: Path) -> str:
    found = f"{counted(made.tensors, 'tensor')} in {counted(made.patterns, 'rule')}"
    named = f"./{out}" if str(out).startswith("-") else str(out)
    lines = [
        f"{out}: {found}, {counted(len(made.dims), 'dim')}",
        f'  undecided  {made.undecided}, each written as "?"',
        f"  next       convert lint {shlex.quote(named)}",
    ]
    return "\n".join(map(printable, lines))
