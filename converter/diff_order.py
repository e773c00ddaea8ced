"""In which order one tensor has the dims, or the rows, of another.

What is told here was compared element by element, in boxes that fit in memory; but that rows are
the same in another order goes by their marks (``diff_elements``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import TypeAlias

import numpy as np

from converter.diff_elements import mark_of_rows, moved_rows
from converter.diff_values import is_rounded, is_same
from converter.numpy_dtypes import NUMPY_DTYPES
from converter.source.stored import Stored
from converter.spec import Shape
from converter.steps.step import Array

BOX_BYTES = 16 << 20
# All orders of four dims; of more dims all those that fit, unless many are of one length.
MOST_ORDERS = 24
_PROBE_BYTES = 16 << 10

Box: TypeAlias = tuple[slice, ...]
_Fits: TypeAlias = Callable[[Array, Array], bool]


@dataclass(frozen=True, slots=True)
class Order:
    """``dims`` is the order of the dims here that gives those there; or how many rows moved."""

    dims: tuple[int, ...] = ()
    rows: int | None = None


def find_order(here: Stored, there: Stored) -> Order | None:
    """Return how two tensors of the same elements are related; None when it is neither way."""
    shape, other = long_dims(here.spec.shape), long_dims(there.spec.shape)
    for order in _orders(shape, other):
        if _is_it(here, there, order, np.array_equal):
            return Order(dims=_whole_order(here.spec.shape, there.spec.shape, order))
    if shape != other:
        return None
    if len(shape) > 1 and mark_of_rows(here, shape) != mark_of_rows(there, shape):
        return None
    return Order(rows=moved_rows(here, there, shape))


def find_cast_order(here: Stored, there: Stored) -> tuple[Order, bool] | None:
    """Return in which order of dims one tensor has the values of another, cast to its dtype.

    With it comes whether they were rounded. The dtypes are two that can be compared.
    """
    for fits, rounded in ((is_same, False), (is_rounded, True)):
        decode = partial(_is_cast, fits, here.spec.dtype, there.spec.dtype)
        for order in _orders(long_dims(here.spec.shape), long_dims(there.spec.shape)):
            if _is_it(here, there, order, decode):
                dims = _whole_order(here.spec.shape, there.spec.shape, order)
                return Order(dims=dims), rounded
    return None


def _is_cast(fits: _Fits, dtype: str, target: str, here: Array, there: Array) -> bool:
    one = np.ascontiguousarray(here).view(NUMPY_DTYPES[dtype])
    return fits(one.reshape(-1), there.view(NUMPY_DTYPES[target]).reshape(-1))


def has_many_orders(here: Stored, there: Stored) -> bool:
    """Whether more orders of the dims would fit than are tried."""
    lengths = Counter(long_dims(here.spec.shape))
    fitting = math.prod(map(math.factorial, lengths.values()))
    return lengths == Counter(long_dims(there.spec.shape)) and fitting > MOST_ORDERS


def _orders(shape: Shape, other: Shape) -> Iterator[tuple[int, ...]]:
    """Yield the orders of the dims of a shape, but for its own, that give the other shape."""
    if Counter(shape) == Counter(other):
        own = tuple(range(len(shape)))
        orders = islice(_matches(shape, other, ()), MOST_ORDERS)
        yield from (order for order in orders if order != own)


def _matches(shape: Shape, other: Shape, begun: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if len(begun) == len(other):
        yield begun
        return
    for dim, length in enumerate(shape):
        if length == other[len(begun)] and dim not in begun:
            yield from _matches(shape, other, (*begun, dim))


def long_dims(shape: Shape) -> Shape:
    """Return a shape without the dims of length 1, which change no order.

    >>> long_dims((4, 1, 3))
    (4, 3)
    """
    return tuple(length for length in shape if length != 1)


def _whole_order(here: Shape, there: Shape, order: Sequence[int]) -> tuple[int, ...]:
    """Return an order of the longer dims as one of all dims; of the longer ones alone if need be.

    >>> _whole_order((4, 1, 3), (3, 4, 1), (1, 0))
    (2, 0, 1)
    """
    longer = [dim for dim, length in enumerate(here) if length != 1]
    short = iter([dim for dim, length in enumerate(here) if length == 1])
    moved = iter([longer[dim] for dim in order])
    if len(here) != len(there):
        return tuple(moved)
    return tuple(next(short) if length == 1 else next(moved) for length in there)


def _is_it(here: Stored, there: Stored, order: Sequence[int], fits: _Fits) -> bool:
    """Whether the tensor there fits the one here with its dims in that order."""
    shape, other = long_dims(here.spec.shape), long_dims(there.spec.shape)
    width = max(tensor.spec.nbytes // tensor.spec.numel for tensor in (here, there))

    def fit(box: Box) -> bool:
        one = _read(here, shape, box)
        return fits(one.transpose(order), _read(there, other, tuple(box[dim] for dim in order)))

    probe = next(_boxes(shape, order, _PROBE_BYTES // width))
    return fit(probe) and all(fit(box) for box in _boxes(shape, order, BOX_BYTES // width))


def _boxes(shape: Shape, order: Sequence[int], most: int) -> Iterator[Box]:
    """Yield boxes of at most so many elements that cover a shape.

    They are long in the dims that lie together in memory, here and there, so that few reads
    gather much.
    """
    sizes = list(shape)
    together = {len(shape) - 1, order[-1]}
    while math.prod(sizes) > most:
        apart = [dim for dim, size in enumerate(sizes) if size > 1 and dim not in together]
        longest = max(apart or range(len(sizes)), key=sizes.__getitem__)
        sizes[longest] = -(-sizes[longest] // 2)
    ranges = [range(0, length, size) for length, size in zip(shape, sizes, strict=True)]
    for begins in product(*ranges):
        yield tuple(
            slice(begin, min(begin + size, length))
            for begin, size, length in zip(begins, sizes, shape, strict=True)
        )


def _read(tensor: Stored, shape: Shape, box: Box) -> Array:
    """Return the bits of a box of a tensor, gathered from the runs that lie together."""
    width = tensor.spec.nbytes // tensor.spec.numel
    lengths = [part.stop - part.start for part in box]
    last = len(shape)
    while last and lengths[last - 1] == shape[last - 1]:
        last -= 1
    lead = max(0, last - 1)  # dims before it are stepped through, one run of bytes at a time
    strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
    run = math.prod(lengths[lead:])
    found = np.empty((math.prod(lengths[:lead]), run), f"u{width}")
    data = found.reshape(-1).view(np.uint8).data
    within = box[lead].start * strides[lead] if shape else 0
    for number, at in enumerate(product(*(range(b.start, b.stop) for b in box[:lead]))):
        begin = within + sum(i * stride for i, stride in zip(at, strides, strict=False))
        size = run * width
        tensor.read_into(data[number * size : (number + 1) * size], begin * width)
    return found.reshape(lengths)
