"""The tensors of a manifest, read line by line.

A manifest spells each tensor on one line, in one way. Text that is known to be so spelled needs
no parser and need not be written again to be compared, which takes most of the time of loading
many small tensors. What is not so spelled, or may not be, is left to the parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from converter.spec import DTYPES

T = TypeVar("T")

_OPENED = b'\n "tensors": {\n'
_CLOSED = b"\n },\n"
_NONE = b'\n "tensors": {},\n'

# What JSON in ASCII spells as it is; numbers as Python and the parser's limits have them.
_PLAIN = r"[ !#-\[\]-~]*"
_INTEGER = r"(?:0|[1-9][0-9]{0,19})"
_REAL = (
    r"-?(?:(?:0|[1-9][0-9]{0,15})\.[0-9]{1,20}"
    r"|[1-9](?:\.[0-9]{1,16})?e(?:\+(?:1[6-9]|[2-9][0-9]|[12][0-9]{2}|30[0-8])"
    r"|-(?:0[5-9]|[1-9][0-9]|[12][0-9]{2}|3[01][0-9]|32[0-4])))"
)
_HEX = "[0-9a-f]{64}"
_BETWEEN = '", "'


def _items(item: str, between: str = ", ") -> str:
    return f"{item}(?:{between}{item})*"


_LINE = re.compile(
    rf'  "({_PLAIN})": \{{"file": "({_PLAIN})", "dtype": "(\w+)"'
    rf', "shape": \[((?:{_items(_INTEGER)})?)\], "offset": ({_INTEGER}), "size": ({_INTEGER})'
    rf', "sha256": "({_HEX})"(?:, "pieces": \["({_items(_HEX, _BETWEEN)})"\])?'
    rf'(?:, "sources": \["({_items(_PLAIN, _BETWEEN)})"\])?'
    rf'(?:, "source_specs": (\[\{{.+?\}}\]))?(?:, "steps": (\[.+?\]))?'
    rf'(?:, "stats": \{{"mean": ({_REAL}), "std": ({_REAL}), "min": ({_REAL}), "max": ({_REAL})'
    rf', "nonfinite": ({_INTEGER})\}})?\}}'
)


def part(data: bytes) -> tuple[bytes, list[str]] | None:
    """Return a manifest without its tensors, and their lines; None where there are no such lines.

    The two together are the whole: ``data`` is as it should be if the first is and each line is.
    """
    begin = data.find(_OPENED)
    end = data.find(_CLOSED, begin)
    if begin < 0 or end < 0:
        return None
    try:
        lines = str(memoryview(data)[begin + len(_OPENED) : end], "ascii")
    except UnicodeDecodeError:
        return None
    return data[:begin] + _NONE + data[end + len(_CLOSED) :], lines.split(",\n")


def read(
    lines: Sequence[str],
    make: Callable[..., T],
    *,
    specs: Callable[[str], object],
    steps: Callable[[str], object],
    statistics: Callable[..., object] | None,
) -> list[T] | None:
    """Return what ``make`` makes of the fields of each tensor, in the order of their lines.

    None when a line is not surely as it should be. ``specs`` reads a text of dtypes and shapes,
    ``steps`` one of steps, and both return None likewise; ``statistics`` makes the last field of
    five numbers. Without it that field is None: the text then has the form of numbers, and which
    ones it means does not matter.
    """
    made: list[T] = []
    shapes: dict[str, tuple[int, ...]] = {"": ()}
    given: dict[str | None, object] = {None: ()}
    chains: dict[str | None, object] = {None: ()}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        name, file, dtype, shape, offset, size, sha256, pieces, sources, before, chain, *texts = (
            match.groups()
        )
        if shape not in shapes:
            shapes[shape] = tuple(map(int, shape.split(", ")))
        if before not in given:
            given[before] = specs(before)
        if chain not in chains:
            chains[chain] = steps(chain)
        stats = None
        if statistics is not None and texts[0] is not None:
            numbers = _numbers(texts)
            if numbers is None:
                return None
            stats = statistics(*numbers)
        if dtype not in DTYPES or given[before] is None or chains[chain] is None:
            return None
        record = make(
            name,
            file,
            dtype,
            shapes[shape],
            int(offset),
            int(size),
            sha256,
            () if pieces is None else tuple(pieces.split(_BETWEEN)),
            () if sources is None else tuple(sources.split(_BETWEEN)),
            given[before],
            chains[chain],
            stats,
        )
        made.append(record)
    return made


def _numbers(texts: Sequence[str]) -> tuple[float, ...] | None:
    """Return what the texts mean; None where Python would spell one in another way."""
    *reals, count = texts
    numbers = [float(text) for text in reals]
    return (*numbers, int(count)) if [repr(number) for number in numbers] == reals else None
