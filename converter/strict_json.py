"""JSON as it should be: no duplicate keys, no NaN, no surprises in depth or size.

Texts come from strangers, and a parsed text takes many times its size: one byte of a list of
empty lists becomes fifty. So what a text would become is bounded before it is parsed.
"""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

from converter.errors import SourceError

# Marks are commas and opening brackets: each adds at most one value. Twice what the manifest of a
# checkpoint of 100,000 tensors has.
MAX_MARKS = 1 << 22
# As much as so many marks take in a manifest that is all digests.
MAX_BYTES = 256 << 20
# One character beyond ASCII makes Python keep every character of its text in two or four bytes.
MAX_WIDE_BYTES = 16 << 20

_MAX_INTEGER_DIGITS = 20
_MAX_FLOAT_DIGITS = 60
_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_RUN = b"0" * _MAX_INTEGER_DIGITS
# Only an escape can spell half a surrogate pair, which is no character.
_WHOLE_CHARACTERS = re.compile(
    r"(?:[^\\]++|\\(?:[^u]|u(?:[^dD]|[dD](?:[0-7]|[89abAB]..\\u[dD][c-fC-F]))))*+"
)


def parse(text: str | bytes, *, where: str, max_marks: int = MAX_MARKS) -> object:
    """Parse strict JSON; ``where`` names the text in errors.

    Raises SourceError for anything that is not UTF-8 JSON, has a key twice in one object, holds
    ``NaN``, infinity, ``-0``, a number too long to be meant or half a surrogate pair, nests too
    deeply, is longer than ``MAX_BYTES``, has more than ``max_marks`` commas and opening brackets,
    or is both very long and not of ASCII alone.
    """
    try:
        data = text.encode("utf-8") if isinstance(text, str) else text
        _check_size(data, max_marks, where)
        text = data.decode("utf-8")
        document: object = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
            parse_int=_parse_int if _may_have_odd_integers(data) else int,
        )
        if "\\u" in text and not _WHOLE_CHARACTERS.fullmatch(text):
            raise ValueError("half a surrogate pair, which is no character")
        return document
    except (ValueError, RecursionError) as error:
        reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise SourceError(f"not strict JSON: {reason}", code="json", where=where) from error


def count_marks(data: bytes) -> int:
    """Return how many commas and opening brackets a text has, strings included."""
    return sum(map(data.count, (b",", b"[", b"{")))


def _check_size(data: bytes, max_marks: int, where: str) -> None:
    if len(data) > MAX_BYTES:
        raise SourceError(
            "not strict JSON: too long a text",
            code="json",
            where=where,
            expected=f"at most {MAX_BYTES:,} bytes",
            got=f"{len(data):,} bytes",
        )
    marks = count_marks(data)
    if marks > max_marks:
        raise SourceError(
            "not strict JSON: it is stuffed",
            code="json",
            where=where,
            expected=f"at most {max_marks:,} commas and opening brackets",
            got=f"{marks:,}",
        )
    if len(data) > MAX_WIDE_BYTES and (b"\\u" in data or not data.isascii()):
        raise SourceError(
            "not strict JSON: too long a text beyond ASCII",
            code="json",
            where=where,
            expected=f"ASCII alone in more than {MAX_WIDE_BYTES:,} bytes",
            got=f"{len(data):,} bytes",
        )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r:.80} stands twice in one object")
            seen.add(key)
    return mapping


def _may_have_odd_integers(data: bytes) -> bool:
    """Whether there may be an integer to refuse; where not, Python reads them all by itself.

    It takes a tenth of the time of a header of many tensors to look at each of them in turn.
    """
    return b"-0" in data or _LONG_RUN in data.translate(_DIGITS_ALIKE)


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _parse_float(digits: str) -> float:
    if len(digits) > _MAX_FLOAT_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits:.20} is out of the range of a double")
    return number


def _parse_int(digits: str) -> int:
    if len(digits) > _MAX_INTEGER_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    if digits == "-0":  # other parsers read a float
        raise ValueError("-0 is not an integer")
    return int(digits)
