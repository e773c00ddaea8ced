"""One result type for every check: what is wrong, where, what was expected, what was got."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning"]

_SLOTS = ("tensor", "expected", "got", "hint")
# Python calls these printable, but they do not show: names that differ in them look the same.
# Source: Default_Ignorable_Code_Point of Unicode, those that are letters or marks.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
_MOST_FOUND = 200
_MOST_LISTED, _MOST_LISTED_CHARS = 60, 2000
_MOST_COMPARED_CHARS = 1 << 20


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
    """Escape control, bidirectional, invisible and other unprintable characters of ``text``.

    Names come from files of strangers; none of them may steer a terminal or a log.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char.isprintable() and not _UNSEEN.match(char) else ascii(char)[1:-1]
        for char in text
    )


def first_few(findings: Iterable[Finding], where: str) -> list[Finding]:
    """Return ``findings``; of very many the first, and one that there are more."""
    found = list(itertools.islice(findings, _MOST_FOUND + 1))
    if len(found) <= _MOST_FOUND:
        return found
    more = Finding(
        "more",
        f"there is more wrong than these {_MOST_FOUND} findings",
        where,
        hint="mend these, then look at the rest",
    )
    return [*found[:_MOST_FOUND], more]


def listed(names: Iterable[str], nothing: str = "none") -> str:
    """Return ``one of a, b, c``; of many names the first, and that there are more."""
    shown = ", ".join(itertools.islice(names, _MOST_LISTED + 1)) or nothing
    whole = shown.count(", ") < _MOST_LISTED and len(shown) <= _MOST_LISTED_CHARS
    return f"one of {shown if whole else shown[:_MOST_LISTED_CHARS] + ' …'}"


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most like ``name``, for a did-you-mean hint; never acted on.

    There is an end to the search, so that names of strangers cannot make it long: it looks at the
    first few thousand candidates, fewer where they are long and much like the name.
    """
    matcher = difflib.SequenceMatcher(b=name)
    best, likeness = None, 0.6
    left = _MOST_COMPARED_CHARS
    for candidate in candidates:
        left -= len(candidate) + len(name)
        if left < 0:
            break
        matcher.set_seq1(candidate)
        if matcher.real_quick_ratio() < likeness or matcher.quick_ratio() < likeness:
            continue
        left -= len(candidate) * len(name)
        ratio = matcher.ratio()
        if ratio > likeness or (ratio == likeness and candidate > (best or "")):
            best, likeness = candidate, ratio
    return best


def counted(number: int, what: str) -> str:
    """Return a number of things as text: ``1 tensor``, ``2 tensors``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
