"""What the author of a rule file has still to decide: every ``"?"`` that a scaffold left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from converter.finding import Finding
from converter.rules.strict_yaml import Document, Path

OPEN = "?"
_SOURCES = ("from", "name")  # names that others gave, whatever they are
_SHOWN_CHARS = 200


def undecided(document: Document) -> Iterator[Finding]:
    """Yield a finding for every ``"?"``: a value, or a name in ``to``, in the order of the file.

    The structure of the document is known to be right. No name of a canonical tensor has a ``?``.
    """
    yield from _within(document, document.value, ())


def _within(document: Document, value: Any, path: Path) -> Iterator[Finding]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if OPEN in key and path[:1] == ("rules",) and path[2:] == ("to",):
                yield _open_target(document, path, key)
            if key not in _SOURCES:
                yield from _within(document, inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _within(document, inner, (*path, number))
    elif value == OPEN:
        yield Finding(
            "undecided",
            f"it is not decided what {'.'.join(map(str, path))} is",
            document.where(path),
            expected="what only the author knows",
            got='"?"',
            hint="write it in place of the question mark",
        )


def _open_target(document: Document, path: Path, key: str) -> Finding:
    top: Any = document.value
    section, number, _ = path
    sources = top[section][number].get("from", "what this rule makes")
    named = sources if isinstance(sources, str) else ", ".join(sources)
    return Finding(
        "undecided",
        f"it is not decided what {named:.{_SHOWN_CHARS}} becomes",
        document.where((*path, key)),
        expected="its canonical name, and its shape behind the steps",
        got=f'"{key:.{_SHOWN_CHARS}}"',
        hint="name it, or move the tensors to drop, with the reason",
    )
