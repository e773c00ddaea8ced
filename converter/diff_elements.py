"""Marks of a tensor that do not depend on the order of its elements, or of its rows.

Tensors whose marks differ do not have the same elements (rows). Of elements of a byte or two the
mark counts how often there is each; of wider ones, and of rows, it is 128 bits that add up mixed
values, which tensors have in common by an accident that nobody will see, or by design.
Source of the mixing: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from converter.source.stored import Stored, blocks
from converter.spec import Shape
from converter.steps.step import Array

Mark: TypeAlias = tuple[object, ...]
Words: TypeAlias = NDArray[np.uint64]

BLOCK_ELEMENTS = 1 << 17

# Odd numbers of random bits: the golden ratio in 64 bits, and the fraction of the root of 2.
_SEEDS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0x6A09E667F3BCC909))
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


def mark_of_elements(tensor: Stored, advance: Callable[[int], None]) -> Mark:
    """Return what tensors of the same elements in any order have in common.

    The dtype is one of whole bytes. ``advance`` is told the bytes read.
    """
    width = tensor.spec.nbytes // tensor.spec.numel
    counts = np.zeros(1 << 8 * width, np.int64) if width <= 2 else None
    sums = [0, 0]
    for data in blocks(tensor, BLOCK_ELEMENTS * width):
        words = np.frombuffer(data, f"u{width}")
        if counts is not None:
            counts += np.bincount(words, minlength=len(counts))
        else:
            for number, seed in enumerate(_SEEDS):
                sums[number] += _sum(_mix(words.astype(np.uint64) ^ seed))
        advance(len(data))
    if counts is not None:
        return (hashlib.sha256(counts.tobytes()).digest(),)
    return tuple(total % (1 << 64) for total in sums)


def mark_of_rows(tensor: Stored, shape: Shape) -> Mark:
    """Return what tensors of the same rows in any order have in common.

    ``shape`` is that of the tensor; a row is a slice of its first dim.
    """
    sums = [0, 0]
    for rows in row_parts(tensor, shape):
        for number, seed in enumerate(_SEEDS):
            hashes = np.zeros(len(rows[0]), np.uint64)
            column = 0
            for part in rows:
                places = np.arange(column, column + part.shape[1], dtype=np.uint64)
                column += part.shape[1]
                mixed = _mix(part.astype(np.uint64) ^ seed) ^ _mix(places ^ seed)
                hashes += _mix(mixed).sum(1, dtype=np.uint64)
            sums[number] += _sum(_mix(hashes))
    return tuple(total % (1 << 64) for total in sums)


def moved_rows(here: Stored, there: Stored, shape: Shape) -> int:
    """Return how many rows of one tensor are not the same as those at their place in the other."""
    moved = 0
    for one, other in zip(row_parts(here, shape), row_parts(there, shape), strict=True):
        differs = np.zeros(len(one[0]), np.bool_)
        for part, match in zip(one, other, strict=True):
            differs |= (part != match).any(1)
        moved += int(np.count_nonzero(differs))
    return moved


def row_parts(tensor: Stored, shape: Shape) -> Iterator[list[Array]]:
    """Yield some rows at a time, as a list of column blocks of bits: one, but for long rows."""
    count, length = shape[0], int(np.prod(shape[1:], dtype=np.int64))
    width = tensor.spec.nbytes // (count * length)
    some = max(1, BLOCK_ELEMENTS // length)
    for first in range(0, count, some):
        rows = min(some, count - first)
        data = bytearray(rows * length * width)
        tensor.read_into(data, first * length * width)
        bits = np.frombuffer(data, f"u{width}").reshape(rows, length)
        yield [bits[:, at : at + BLOCK_ELEMENTS] for at in range(0, length, BLOCK_ELEMENTS)]


def _mix(words: Words) -> Words:
    """Return words of which each bit depends on all bits of the one before; works in place."""
    words ^= words >> _30
    words *= _FIRST
    words ^= words >> _27
    words *= _SECOND
    words ^= words >> _31
    return words


def _sum(words: Words) -> int:
    return int(words.sum(dtype=np.uint64))
