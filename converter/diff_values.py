"""How far the values of two tensors are apart, block by block, in little memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from converter.diff_elements import BLOCK_ELEMENTS
from converter.diff_entry import Difference, Tolerance
from converter.distance import distance, relative
from converter.numpy_dtypes import NUMPY_DTYPES
from converter.source.stored import Stored, blocks
from converter.spec import DTYPES
from converter.steps.dtypes import FLOATS
from converter.steps.float64 import Floats64, round_once, to_float64
from converter.steps.step import Array

Bools: TypeAlias = NDArray[np.bool_]

_EXACT_IN_DOUBLE = 2.0**53


@dataclass(frozen=True, slots=True)
class Apart:
    """The difference of two tensors, and what it says of how one was made of the other.

    ``same`` says that all values are equal, ``rounded`` that those of one side are those of the
    other, rounded once to its dtype; ``alike`` that smallest and largest are the same on both sides
    and so one may be the other in another order.
    """

    difference: Difference
    same: bool
    rounded: bool
    alike: bool


@dataclass(frozen=True, slots=True)
class _Sums:
    """What is known of the elements so far."""

    elements: int = 0
    differing: int = 0
    nonfinite: int = 0
    finite: int = 0
    beyond: int = 0
    largest: float = 0.0
    largest_relative: float = 0.0
    total: float = 0.0
    squares: tuple[float, float, float] = (0.0, 0.0, 0.0)
    here: tuple[float, float] = (math.inf, -math.inf)
    there: tuple[float, float] = (math.inf, -math.inf)
    rounded: tuple[bool, bool] = (True, True)

    def joined(self, other: _Sums) -> _Sums:
        first, second, mixed = (a + b for a, b in zip(self.squares, other.squares, strict=True))
        return _Sums(
            self.elements + other.elements,
            self.differing + other.differing,
            self.nonfinite + other.nonfinite,
            self.finite + other.finite,
            self.beyond + other.beyond,
            max(self.largest, other.largest),
            max(self.largest_relative, other.largest_relative),
            self.total + other.total,
            (first, second, mixed),
            (min(self.here[0], other.here[0]), max(self.here[1], other.here[1])),
            (min(self.there[0], other.there[0]), max(self.there[1], other.there[1])),
            (self.rounded[0] and other.rounded[0], self.rounded[1] and other.rounded[1]),
        )


def can_compare(here: str, there: str) -> bool:
    """Whether the values of two dtypes can be compared."""
    whole = all(DTYPES[dtype].bits >= 8 for dtype in (here, there))
    return whole and (here == there or "C64" not in (here, there))


def compare(
    here: Stored, there: Stored, tolerance: Tolerance, advance: Callable[[int], None]
) -> Apart:
    """Compare two tensors of as many elements, whose dtypes can be, in row-major order.

    ``advance`` is told the bytes that were read of both.
    """
    sums = _Sums()
    sizes = [BLOCK_ELEMENTS * tensor.spec.nbytes // tensor.spec.numel for tensor in (here, there)]
    streams = (blocks(tensor, size) for tensor, size in zip((here, there), sizes, strict=True))
    with np.errstate(all="ignore"):
        for data in zip(*streams, strict=True):
            one = _decoded(data[0], here.spec.dtype)
            other = _decoded(data[1], there.spec.dtype)
            sums = sums.joined(_of_block(one, other, tolerance))
            advance(len(data[0]) + len(data[1]))
    return Apart(
        _difference(sums),
        same=sums.differing == 0,
        rounded=any(sums.rounded),
        alike=sums.here == sums.there,
    )


def _decoded(data: memoryview, dtype: str) -> Array:
    """Return values to be compared: of a boolean its byte, of a complex number its two parts."""
    plain = {"BOOL": "U8", "C64": "F32"}.get(dtype, dtype)
    return np.frombuffer(data, NUMPY_DTYPES[plain])


def _of_block(here: Array, there: Array, tolerance: Tolerance) -> _Sums:
    one, other = to_float64(here), to_float64(there)
    if here.dtype == there.dtype:
        differs = bits(here) != bits(there)
        rounded = (False, False)
    else:
        differs = ~_equal(here, there, one, other)
        rounded = (_is_rounded(one, there, other), _is_rounded(other, here, one))
    finite = np.isfinite(one) & np.isfinite(other)
    if not finite.all():
        sums = _of_finite(here[finite], there[finite], one[finite], other[finite], tolerance)
        odd = int(np.count_nonzero(differs & ~finite))
    else:
        sums, odd = _of_finite(here, there, one, other, tolerance), 0
    return replace(
        sums,
        elements=len(one),
        differing=int(np.count_nonzero(differs)),
        nonfinite=odd,
        beyond=sums.beyond + odd,
        here=_extremes(one),
        there=_extremes(other),
        rounded=rounded,
    )


def _extremes(values: Floats64) -> tuple[float, float]:
    """Return the smallest and the largest finite value, which do not depend on the order."""
    low, high = float(values.min()), float(values.max())
    if math.isfinite(low) and math.isfinite(high):
        return low, high
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (math.inf, -math.inf)


def _of_finite(
    here: Array, there: Array, one: Floats64, other: Floats64, tolerance: Tolerance
) -> _Sums:
    if not len(one):
        return _Sums()
    apart = distance(here, there, one, other)
    size = np.maximum(np.abs(one), np.abs(other))
    beyond = apart > tolerance.atol + tolerance.rtol * size
    return _Sums(
        finite=len(one),
        beyond=int(np.count_nonzero(beyond)),
        largest=float(apart.max()),
        largest_relative=float(relative(apart, size).max()),
        total=float(apart.sum()),
        squares=(
            float((one * one).sum()),
            float((other * other).sum()),
            float((one * other).sum()),
        ),
    )


def _equal(here: Array, there: Array, one: Floats64, other: Floats64) -> Bools:
    """Return where values of two dtypes are the same number, or both none."""
    equal: Bools = (one == other) | (np.isnan(one) & np.isnan(other))
    for array, values in ((here, other), (there, one)):
        if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
            # An integer so large may have been rounded to the number that it is compared with.
            large = np.flatnonzero(np.abs(values) >= _EXACT_IN_DOUBLE)
            exact = zip(array[large].tolist(), values[large].tolist(), strict=True)
            equal[large] &= np.array([whole == value for whole, value in exact], np.bool_)
    return equal


def is_same(here: Array, there: Array) -> bool:
    """Whether the values of two arrays are the same numbers, or none where the others are none."""
    return bool(_equal(here, there, to_float64(here), to_float64(there)).all())


def is_rounded(here: Array, there: Array) -> bool:
    """Whether the values of one array are those of the other, rounded to nearest."""
    one, other = to_float64(here), to_float64(there)
    return _is_rounded(one, there, other) or _is_rounded(other, here, one)


def _is_rounded(values: Floats64, target: Array, numbers: Floats64) -> bool:
    """Whether ``target`` is float64 ``values``, rounded to nearest."""
    name = next((name for name in FLOATS if NUMPY_DTYPES[name] == target.dtype), None)
    if name is None:
        return False
    made = to_float64(round_once(values, name))
    return bool(((made == numbers) | (np.isnan(made) & np.isnan(numbers))).all())


def bits(array: Array) -> Array:
    """Return elements as the unsigned integers of their bits."""
    return array.view(f"u{array.dtype.itemsize}")


def _difference(sums: _Sums) -> Difference:
    first, second, mixed = sums.squares
    lengths = math.sqrt(first) * math.sqrt(second)
    cosine = mixed / lengths if lengths and math.isfinite(lengths) else None
    return Difference(
        elements=sums.elements,
        differing=sums.differing,
        nonfinite=sums.nonfinite,
        largest=_finite(sums.largest),
        largest_relative=_finite(sums.largest_relative),
        mean=_finite(sums.total / sums.finite) if sums.finite else None,
        cosine=None if cosine is None else max(-1.0, min(1.0, cosine)),
        beyond=sums.beyond,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
