"""Names with placeholders: ``layers.{i}.attention.{p}.weight``.

A placeholder is an integer expression, or the name of a text (a word or a set). A template is
filled, never matched: names are enumerated from their indices.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from converter.errors import RuleError
from converter.rules import expression
from converter.rules.expression import Expression, Values

Texts = Mapping[str, str]

MAX_LENGTH = 2000

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_BAD_LITERAL = re.compile(r"[{}*\s]")


@dataclass(frozen=True)
class Template:
    """A name with placeholders; ``names`` are all that its placeholders mention.

    ``weight`` is what filling it takes at most, in operations.
    """

    text: str
    names: frozenset[str]
    weight: int
    holes: tuple[Expression, ...]
    _format: str

    def fill(self, values: Values, texts: Texts) -> str:
        """Return the name for these values. Raises RuleError when a placeholder has none."""
        parts: list[str | int] = []
        for hole in self.holes:
            if (text := texts.get(hole.text)) is not None:
                parts.append(text)
                continue
            number = values.get(hole.text)  # most placeholders are nothing but an index
            if not isinstance(number, int):
                number = hole.evaluate(values)
            if number < 0:
                raise self._negative(hole, number)
            parts.append(number)
        return self._format % tuple(parts)

    def _negative(self, hole: Expression, number: int) -> RuleError:
        return RuleError(
            f"the placeholder {{{hole.text}}} of {self.text!r} is negative",
            code="negative-index",
            expected="0 or more",
            got=str(number),
        )


@functools.cache
def parse(text: str) -> Template:
    """Parse a name template. Raises RuleError for stray braces, blanks and wildcards."""
    if len(text) > MAX_LENGTH:
        raise RuleError(
            f"{text:.40}… is too long a name",
            code="name",
            expected=f"at most {MAX_LENGTH:,} characters, placeholders included",
            got=f"{len(text):,} characters",
        )
    pieces = _PLACEHOLDER.split(text)
    literals, holes = pieces[0::2], pieces[1::2]
    if not text or any(_BAD_LITERAL.search(literal) for literal in literals):
        raise RuleError(
            f"{text!r} is not a name",
            code="name",
            expected="text with balanced {placeholders}, no blanks and no wildcards",
            hint="name the indices: wildcards exist only as a final ** of a drop with a count"
            if "*" in text
            else None,
        )
    parsed = tuple(expression.parse(hole.strip()) for hole in holes)
    names = frozenset().union(*(hole.names for hole in parsed))
    weight = 1 + sum(1 + hole.weight for hole in parsed)
    form = "%s".join(literal.replace("%", "%%") for literal in literals)
    return Template(text, names, weight, parsed, form)
