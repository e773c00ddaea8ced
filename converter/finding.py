"""One result type for every check: what is wrong, where, what was expected, what was got."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning"]

_SLOTS = ("tensor", "expected", "got", "hint")


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact found by a check.

    ``code`` is a stable word for machines (``missing``, ``shape``, ``digest`` …); the other
    fields are text for people. ``where`` is ``file:line`` or a path; ``tensor`` may be folded
    (``layers.{0..11}.weight``).
    """

    code: str
    what: str
    where: str | None = None
    tensor: str | None = None
    expected: str | None = None
    got: str | None = None
    hint: str | None = None
    severity: Severity = "error"

    def as_json(self) -> dict[str, str]:
        """Return the fields that are set, for a ``--json`` report."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def render(self) -> str:
        """Return the finding as text: one line of fact, then one line per filled slot."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        lines = [printable(head)]
        for slot in _SLOTS:
            value = getattr(self, slot)
            if value is not None:
                lines.append(f"  {slot + ':':<10}{printable(value)}")
        return "\n".join(lines)


def printable(text: str) -> str:
    """Escape control, bidirectional and other unprintable characters of ``text``.

    Names come from files of strangers; none of them may steer a terminal or a log.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most like ``name``, for a did-you-mean hint; never acted on."""
    matches = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return matches[0] if matches else None
