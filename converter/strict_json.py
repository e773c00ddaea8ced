"""JSON as it should be: no duplicate keys, no NaN, no surprises in depth or size."""

from __future__ import annotations

import json
from typing import NoReturn

from converter.errors import SourceError


def parse(text: str | bytes, *, where: str) -> object:
    """Parse strict JSON; ``where`` names the text in errors.

    Raises SourceError for anything that is not UTF-8 JSON, has a key twice in one object, holds
    ``NaN`` or ``Infinity``, a number too long to be meant, or nests too deeply.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_parse_int
        )
    except (ValueError, RecursionError) as error:
        reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise SourceError(f"not strict JSON: {reason}", code="json", where=where) from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} stands twice in one object")
            seen.add(key)
    return mapping


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _parse_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)
