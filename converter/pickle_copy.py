"""Copying the values of a tensor by position, row by row, in bounded memory, whatever its strides.

A tensor that is laid out as it will be written is copied in blocks. Any other is cut into tiles;
a tile is gathered from parts of the file that hold little else, and scattered into whole rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from converter.pickle_select import Piece
from converter.positional import ReadBuffer
from converter.source.regular_file import RegularFile
from converter.spec import DTYPES, Shape

BLOCK_BYTES = 4 << 20
TILE_BYTES = 16 << 20
# A part of the file is read whole if it is small, or mostly of use.
PART_BYTES = 64 << 10
WASTE = 4

Write: TypeAlias = Callable[[int, ReadBuffer], None]
# For each dim, where a part of a tensor begins and how many elements it has.
Box: TypeAlias = tuple[tuple[int, int], ...]


def copy(file: RegularFile, piece: Piece, write: Write, *, to: int = 0) -> Iterator[int]:
    """Copy a tensor of ``file`` and yield the bytes done, step by step.

    ``write`` takes a position in bytes and what stands there; the tensor begins at ``to``. Raises
    SourceError, and what ``write`` raises.
    """
    if is_contiguous(piece.spec.shape, piece.strides):
        yield from _copy_blocks(file, piece, write, to)
        return
    for box in _tiles(tuple((0, n) for n in piece.spec.shape), _item(piece)):
        _copy_tile(file, piece, box, write, to)
        yield math.prod(n for _, n in box) * _item(piece)


def is_contiguous(shape: Shape, strides: Shape) -> bool:
    """Return whether elements lie in the order of rows, one right after the other."""
    expected = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n > 1 and stride != expected:
            return False
        expected *= n
    return True


def _item(piece: Piece) -> int:
    return DTYPES[piece.spec.dtype].bits // 8


def _copy_blocks(file: RegularFile, piece: Piece, write: Write, to: int) -> Iterator[int]:
    block = memoryview(bytearray(min(BLOCK_BYTES, piece.end - piece.begin)))
    for position in range(piece.begin, piece.end, BLOCK_BYTES):
        part = block[: piece.end - position]
        file.read_into(part, position)
        write(to + position - piece.begin, part)
        yield len(part)


def _tiles(box: Box, item: int) -> Iterator[Box]:
    """Cut a box along its longest sides, until each part has no more than ``TILE_BYTES``."""
    if math.prod(n for _, n in box) * item <= TILE_BYTES:
        yield box
        return
    longest = max(range(len(box)), key=lambda dim: box[dim][1])
    for half in _halves(box, longest):
        yield from _tiles(half, item)


def _halves(box: Box, dim: int) -> tuple[Box, Box]:
    begin, n = box[dim]
    first, second = (begin, n // 2), (begin + n // 2, n - n // 2)
    return (*box[:dim], first, *box[dim + 1 :]), (*box[:dim], second, *box[dim + 1 :])


def _copy_tile(file: RegularFile, piece: Piece, box: Box, write: Write, to: int) -> None:
    """Gather one tile of a tensor and write it, row by row of the whole tensor."""
    import numpy as np

    item = _item(piece)
    tile = np.empty([n for _, n in box], dtype=f"V{item}")
    _gather(file, piece, box, tile)
    shape = piece.spec.shape
    # Dims from this one on are whole in the tile, so that its rows are contiguous in the target.
    whole = len(box)
    while whole and box[whole - 1] == (0, shape[whole - 1]):
        whole -= 1
    run = max(whole - 1, 0)
    steps = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
    inner = sum(begin * step for (begin, _), step in zip(box[run:], steps[run:], strict=True))
    for outer in itertools.product(*(range(n) for _, n in box[:run])):
        begins = (begin + i for (begin, _), i in zip(box, outer, strict=False))
        start = inner + sum(i * step for i, step in zip(begins, steps, strict=False))
        write(to + start * item, memoryview(tile[outer].tobytes()))


def _gather(file: RegularFile, piece: Piece, box: Box, tile: Any) -> None:
    """Fill ``tile`` with the elements of a box, from reads that are small or mostly of use."""
    import numpy as np

    item = _item(piece)
    reach = [(n - 1) * stride for (_, n), stride in zip(box, piece.strides, strict=True)]
    size = (sum(reach) + 1) * item
    if size > max(PART_BYTES, WASTE * tile.size * item):
        dim = max(range(len(box)), key=reach.__getitem__)
        first, second = _halves(box, dim)
        at = [slice(None)] * dim
        _gather(file, piece, first, tile[(*at, slice(first[dim][1]))])
        _gather(file, piece, second, tile[(*at, slice(first[dim][1], None))])
        return
    offset = sum(begin * stride for (begin, _), stride in zip(box, piece.strides, strict=True))
    data = file.read(piece.begin + offset * item, size)
    tile[...] = np.lib.stride_tricks.as_strided(
        np.frombuffer(data, dtype=f"V{item}"),
        shape=tile.shape,
        strides=[stride * item for stride in piece.strides],
        writeable=False,
    )
