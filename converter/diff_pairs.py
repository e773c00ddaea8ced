"""Examine by their values the tensors that names and digests left open, on all cores."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from typing import TypeAlias, TypeVar

import numpy as np

from converter.diff_elements import BLOCK_ELEMENTS, Mark, mark_of_elements
from converter.diff_entry import Entry, Tolerance
from converter.diff_order import (
    MOST_ORDERS,
    find_cast_order,
    find_order,
    has_many_orders,
    long_dims,
)
from converter.diff_side import Meter, Side, is_constant
from converter.diff_values import Apart, can_compare, compare
from converter.numpy_dtypes import NUMPY_DTYPES
from converter.source.stored import Stored, blocks
from converter.spec import DTYPES, Header, Shape, TensorSpec
from converter.steps.dtypes import FLOATS, widens
from converter.steps.float64 import round_once
from converter.values import bytes_of

T = TypeVar("T")
Names: TypeAlias = Mapping[str, TensorSpec]
Digests: TypeAlias = Mapping[str, str]
# A name here (0) or there (1), or what lies between: a digest that a cast gives.
_Node: TypeAlias = tuple[int, str | tuple[str, TensorSpec]]
_BETWEEN = 2

_NARROW = "elements of less than a byte: only their bytes were compared"
_OTHER_SHAPE = "of another shape: no two elements belong together, so values were not compared"
_COMPLEX = "complex and real: values were not compared"
_ORDERED = "the same elements in another order, and several tensors have them"
_MANY_ORDERS = f"of the orders of so many dims only the first {MOST_ORDERS} were tried"
_CAST = "the same values in another dtype, which do not tell which is which"


class Examiner:
    """Reads the values of two sides; ``meter`` is told the bytes that were compared."""

    def __init__(
        self,
        here: Side,
        there: Side,
        tolerance: Tolerance | None,
        pool: Executor,
        meter: Meter,
    ) -> None:
        self.here, self.there = here, there
        self.tolerance = tolerance
        self.pool = pool
        self.meter = meter

    def pairs(self, names: Iterable[str]) -> list[Entry]:
        """Return how tensors of one name, which are not equal, differ."""
        wanted = _largest_first(names, self.here.header)
        self.meter.total += sum(
            self.here.header[name].nbytes + self.there.header[name].nbytes for name in wanted
        )
        return list(self.pool.map(self.pair, wanted))

    def pair(self, name: str) -> Entry:
        """Return how two tensors of one name differ."""
        one, other = self.here.tensor(name), self.there.tensor(name)
        spec, match = one.spec, other.spec
        if spec.numel != match.numel:
            return Entry("changed", (name,), (name,))
        if not spec.numel:
            if spec.shape != match.shape:
                return Entry("changed", (name,), (name,))
            return Entry("cast", (name,), (name,), rounded=False)
        if not can_compare(spec.dtype, match.dtype):
            narrow = min(DTYPES[spec.dtype].bits, DTYPES[match.dtype].bits) < 8
            return Entry("changed", (name,), (name,), note=_NARROW if narrow else _COMPLEX)
        if long_dims(spec.shape) == long_dims(match.shape):
            return self.aligned(name, one, other)
        different = spec.dtype != match.dtype
        found = _cast_order(name, one, other) if different else self.in_order(one, other)
        note = _MANY_ORDERS if different and has_many_orders(one, other) else _OTHER_SHAPE
        return found or Entry("changed", (name,), (name,), note=note)

    def aligned(self, name: str, one: Stored, other: Stored) -> Entry:
        """Return how two tensors differ whose elements belong together one by one."""
        apart = self.apart(one, other)
        difference = apart.difference
        if one.spec.dtype != other.spec.dtype:
            if apart.same or apart.rounded:
                return Entry("cast", (name,), (name,), rounded=not apart.same)
            note = _MANY_ORDERS if has_many_orders(one, other) else None
            changed = Entry("changed", (name,), (name,), difference=difference, note=note)
            return _cast_order(name, one, other) or changed
        if self.tolerance is not None and not difference.beyond and one.spec == other.spec:
            return Entry("within", (name,), (name,), difference=difference)
        found = self.in_order(one, other) if apart.alike else None
        return found or Entry("changed", (name,), (name,), difference=difference)

    def apart(self, one: Stored, other: Stored) -> Apart:
        """Compare two tensors element by element."""
        return compare(one, other, self.tolerance or Tolerance(), self.meter.advance)

    def in_order(self, one: Stored, other: Stored) -> Entry | None:
        """Return in which order one tensor has the elements of the other, if in any."""
        if mark_of_elements(one, _ignore) != mark_of_elements(other, _ignore):
            return None
        return _ordered(one, other, one.name, other.name)

    def ordered(self, left: Names, right: Names) -> Iterator[Entry]:
        """Yield what is under another name and in another order."""
        sizes = [{(spec.dtype, spec.numel) for spec in names.values()} for names in (left, right)]
        both = sizes[0] & sizes[1]

        def wanted(names: Names) -> list[str]:
            fit = [n for n, spec in names.items() if (spec.dtype, spec.numel) in both]
            return [name for name in fit if _is_divisible(names[name])]

        marks = self.marks(self.here, wanted(left)), self.marks(self.there, wanted(right))
        for mark in [mark for mark in marks[0] if mark in marks[1]]:
            names, matches = marks[0][mark], marks[1][mark]
            if len(names) == len(matches) == 1:
                one, other = self.here.tensor(names[0]), self.there.tensor(matches[0])
                yield _ordered(one, other, names[0], matches[0])
            else:
                yield Entry("ambiguous", tuple(names), tuple(matches), note=_ORDERED)

    def marks(self, side: Side, names: Iterable[str]) -> dict[Mark, list[str]]:
        """Group tensors by dtype, size and elements, whatever their order."""
        wanted = _largest_first(names, side.header)
        self.meter.total += sum(side.header[name].nbytes for name in wanted)

        def mark(name: str) -> Mark:
            tensor = side.tensor(name)
            of = mark_of_elements(tensor, self.meter.advance)
            return tensor.spec.dtype, tensor.spec.numel, *of

        return _grouped(zip(self.pool.map(mark, wanted), wanted, strict=True))

    def cast(self, left: Names, right: Names, here: Digests, there: Digests) -> Iterator[Entry]:
        """Yield what is under another name and in another floating dtype."""
        edges = [
            *self.narrowed(self.here, left, right, there, sides=(0, 1)),
            *self.narrowed(self.there, right, left, here, sides=(1, 0)),
        ]
        for names, matches in _connected(edges):
            alone = len(names) == len(matches) == 1
            one, other = self.here.tensor(names[0]), self.there.tensor(matches[0])
            if alone and not is_constant(one) and not is_constant(other):
                apart = compare(one, other, Tolerance(), _ignore)
                yield Entry("cast", names, matches, rounded=not apart.same)
            else:
                yield Entry("ambiguous", names, matches, note=_CAST)

    def narrowed(
        self, side: Side, names: Names, others: Names, known: Digests, *, sides: tuple[int, int]
    ) -> Iterator[tuple[_Node, _Node]]:
        """Yield what connects ``names``, cast to other dtypes, with those that are such casts."""
        found: dict[tuple[str, TensorSpec], list[str]] = {}
        dtypes: dict[Shape, dict[str, None]] = {}
        for name, spec in others.items():
            found.setdefault((known[name], spec), []).append(name)
            dtypes.setdefault(spec.shape, {})[spec.dtype] = None
        wanted = [
            (name, TensorSpec(dtype, spec.shape))
            for name, spec in names.items()
            for dtype in dtypes.get(spec.shape, ())
            if spec.numel and _may_narrow(spec.dtype, dtype)
        ]
        self.meter.total += sum(names[name].nbytes for name, _ in wanted)

        def digest(pair: tuple[str, TensorSpec]) -> str:
            return _digest_of_cast(side.tensor(pair[0]), pair[1].dtype, self.meter.advance)

        made = zip(wanted, self.pool.map(digest, wanted), strict=True)
        keys = [(name, (digest, spec)) for (name, spec), digest in made]
        fitting = [(name, key) for name, key in keys if key in found]
        yield from (((sides[0], name), (_BETWEEN, key)) for name, key in fitting)
        for key in dict.fromkeys(key for _, key in fitting):
            yield from (((sides[1], match), (_BETWEEN, key)) for match in found[key])


def _connected(
    edges: Iterable[tuple[_Node, _Node]],
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield the names here and those there that are connected, directly or by way of others."""
    beside: dict[_Node, list[_Node]] = {}
    for one, other in edges:
        beside.setdefault(one, []).append(other)
        beside.setdefault(other, []).append(one)
    seen: set[_Node] = set()
    for start in beside:
        if start in seen:
            continue
        reached, found = [start], dict.fromkeys([start])
        while reached:
            fresh = [node for node in beside[reached.pop()] if node not in found]
            found |= dict.fromkeys(fresh)
            reached += fresh
        seen |= found.keys()
        names, matches = ([str(n) for side, n in found if side == which] for which in (0, 1))
        yield tuple(names), tuple(matches)


def _ordered(one: Stored, other: Stored, name: str, match: str) -> Entry:
    order = find_order(one, other)
    if order is None:
        note = _MANY_ORDERS if has_many_orders(one, other) else None
        return Entry("rearranged", (name,), (match,), note=note)
    if order.dims:
        return Entry("transposed", (name,), (match,), dims=order.dims)
    return Entry("rows-permuted", (name,), (match,), rows=order.rows)


def _cast_order(name: str, one: Stored, other: Stored) -> Entry | None:
    found = find_cast_order(one, other)
    if found is None:
        return None
    order, rounded = found
    return Entry("transposed", (name,), (name,), dims=order.dims, rounded=rounded)


def _may_narrow(dtype: str, target: str) -> bool:
    """Whether to look for the values of a dtype in another that does not hold all of them."""
    known = dtype in FLOATS and target in FLOATS and dtype != target
    return known and not widens(dtype, target)


def _digest_of_cast(tensor: Stored, dtype: str, advance: Callable[[int], None]) -> str:
    """Return the digest of a tensor's bytes after a cast, each value rounded to nearest."""
    digest = hashlib.sha256()
    width = tensor.spec.nbytes // tensor.spec.numel
    for block in blocks(tensor, BLOCK_ELEMENTS * width):
        values = np.frombuffer(block, NUMPY_DTYPES[tensor.spec.dtype])
        digest.update(bytes_of(round_once(values.astype(np.float64), dtype)))
        advance(len(block))
    return digest.hexdigest()


def _is_divisible(spec: TensorSpec) -> bool:
    """Whether a tensor has elements, and they can be taken apart."""
    return bool(spec.numel) and DTYPES[spec.dtype].bits >= 8


def _largest_first(names: Iterable[str], header: Header) -> list[str]:
    """Return names with the largest tensors, which take longest, first."""
    return sorted(names, key=lambda name: -header[name].nbytes)


def _grouped(pairs: Iterable[tuple[Mark, T]]) -> dict[Mark, list[T]]:
    groups: dict[Mark, list[T]] = {}
    for mark, item in pairs:
        groups.setdefault(mark, []).append(item)
    return groups


def _ignore(size_bytes: int) -> None:
    """Take note of nothing: what is read again was counted."""
