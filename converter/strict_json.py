"""JSON as it should be: no duplicate keys, no NaN, no surprises in depth or size."""

from __future__ import annotations

import json
import math
from typing import NoReturn

from converter.errors import SourceError


def parse(text: str | bytes, *, where: str) -> object:
    """Parse strict JSON; ``where`` names the text in errors.

    Raises SourceError for anything that is not UTF-8 JSON, has a key twice in one object, holds
    ``NaN``, infinity, ``-0``, a number too long to be meant or half a surrogate pair, or nests too
    deeply.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        document: object = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
            parse_int=_parse_int,
        )
        if "\\u" in text:  # only an escape can spell half a surrogate pair, which is no character
            json.dumps(document, ensure_ascii=False).encode("utf-8")
        return document
    except (ValueError, RecursionError) as error:
        reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise SourceError(f"not strict JSON: {reason}", code="json", where=where) from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r:.80} stands twice in one object")
            seen.add(key)
    return mapping


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits:.20} is out of the range of a double")
    return number


def _parse_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a number of {len(digits)} digits")
    if digits == "-0":  # other parsers read a float
        raise ValueError("-0 is not an integer")
    return int(digits)
