"""How far two tensors are apart, in constant memory and float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from converter.distance import Values, distance, relative
from converter.errors import ExecutionError
from converter.numpy_dtypes import NUMPY_DTYPES
from converter.progress import Progress
from converter.source.stored import Stored, blocks
from converter.spec import DTYPES, TensorSpec
from converter.steps.dtypes import FLOATS

_CHUNK_ELEMENTS = 1 << 18

# Beyond what implementations of one formula differ by, as docs/trace.md shows: 24 random layers in
# the dtype, against the same in float64, need 2e-5, 3e-2 and 0.25.
DEFAULT_RTOL: Mapping[str, float] = {
    "F64": 1e-10,
    "F32": 1e-4,
    "C64": 1e-4,
    "F16": 0.1,
    "BF16": 0.5,
}
_RTOL_OF_A_BYTE = 1.0

# What a dtype rounds by at most, relative to the value: half of its last place.
ROUNDING: Mapping[str, float] = {
    dtype: 2.0 ** -FLOATS[part].digits
    for dtype, part in {
        "F64": "F64",
        "F32": "F32",
        "C64": "F32",
        "F16": "F16",
        "BF16": "BF16",
    }.items()
}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a user allows; None stands for what fits the dtype."""

    atol: float | None = None
    rtol: float | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """How far two tensors of one shape are apart.

    ``largest`` is the largest absolute difference, at ``index``, where the one has ``expected`` and
    the other ``got``; ``relative`` the largest by the larger of both magnitudes; ``mean`` the mean
    absolute one; ``error`` the root mean square of the difference by that of the one; ``cosine``
    that of the angle between both, as vectors. Where one has NaN or an infinity and the other has
    not the same, ``largest`` is infinite; the other figures are of what is finite in both. What
    float64 cannot hold is infinite.
    ``beyond`` counts the elements that differ by more than ``atol + rtol * |expected|``.
    """

    largest: float
    relative: float
    mean: float
    error: float
    cosine: float
    index: tuple[int, ...]
    expected: str
    got: str
    beyond: int
    atol: float
    rtol: float
    same_bytes: bool

    @property
    def agrees(self) -> bool:
        """Whether no element is beyond the tolerance."""
        return self.beyond == 0


def measure(one: Stored, other: Stored, tolerance: Tolerance, progress: Progress) -> Measure:
    """Compare two tensors of one shape; ``progress`` is told of the bytes of ``one``, once each.

    An element agrees if ``|one - other| <= atol + rtol * |one|``. Without an ``rtol`` it is that of
    the coarser dtype, and without an ``atol`` it is ``rtol`` times the root mean square of ``one``.
    Integers and booleans agree if they are equal, NaN agrees with NaN, and an infinity with the
    same one. Raises SourceError, and ExecutionError
    for dtypes of less than a byte.
    """
    exact = all(DTYPES[tensor.spec.dtype].kind in ("integer", "bool") for tensor in (one, other))
    same, power = one.spec.dtype == other.spec.dtype, 0.0
    for _, x, y in _chunks(one, other):
        same = same and x.tobytes() == y.tobytes()
        power += _power(x)
        progress(x.nbytes, 0)
    rtol = _rtol(one.spec.dtype, other.spec.dtype) if tolerance.rtol is None else tolerance.rtol
    atol = tolerance.atol
    if atol is None:
        atol = rtol * math.sqrt(power / max(one.spec.numel, 1)) if math.isfinite(power) else 0.0
    if exact:
        rtol = atol = 0.0
    sums = _Sums(atol, rtol)
    if not same:
        for begin, x, y in _chunks(one, other):
            sums.add(begin, x, y)
    return sums.measure(one.spec, same_bytes=same)


def _rtol(*dtypes: str) -> float:
    kinds = [dtype for dtype in dtypes if DTYPES[dtype].kind in ("float", "complex")]
    return max((DEFAULT_RTOL.get(dtype, _RTOL_OF_A_BYTE) for dtype in kinds), default=0.0)


def _chunks(one: Stored, other: Stored) -> Iterator[tuple[int, Values, Values]]:
    """Yield the number of a first element, and the next values of both."""
    pairs = zip(_parts(one), _parts(other), strict=True)
    for number, (x, y) in enumerate(pairs):
        yield number * _CHUNK_ELEMENTS, x, y


def _parts(tensor: Stored) -> Iterator[Values]:
    dtype = NUMPY_DTYPES.get(tensor.spec.dtype)
    if dtype is None:
        what = "tensors of less than a byte an element cannot be compared"
        raise ExecutionError(what, tensor=tensor.name, got=tensor.spec.dtype)
    for block in blocks(tensor, _CHUNK_ELEMENTS * dtype.itemsize):
        yield np.frombuffer(block, dtype)


@np.errstate(all="ignore")
def _wide(values: Values) -> Values:
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


@np.errstate(all="ignore")
def _power(values: Values) -> float:
    return float(np.sum(np.square(np.abs(_finite(_wide(values))))))


def _finite(values: Values) -> Values:
    return np.where(np.isfinite(values), values, 0)


class _Sums:
    """What becomes a ``Measure``, chunk by chunk."""

    def __init__(self, atol: float, rtol: float) -> None:
        self.atol, self.rtol = atol, rtol
        self.largest = -1.0
        self.at, self.expected, self.got = 0, "", ""
        self.relative = self.total = 0.0
        self.beyond = self.finite = 0
        self.product = self.left = self.right = self.apart = 0.0

    @np.errstate(all="ignore")
    def add(self, begin: int, one: Values, other: Values) -> None:
        """Add a chunk, whose first element is the ``begin``-th."""
        x, y = _wide(one), _wide(other)
        both = np.isfinite(x) & np.isfinite(y)
        # Not all integers of 64 bits are apart in float64, nor are they from floats.
        exact = one.dtype.kind in "biu" and other.dtype.kind in "biu"
        alike = (one == other) if exact else (x == y) | (np.isnan(x) & np.isnan(y))
        apart = np.where(alike, 0.0, np.where(both, distance(one, other, x, y), np.inf))
        apart = np.where(~alike & (apart == 0), 1.0, apart)
        self.beyond += int(np.count_nonzero(apart > self.atol + self.rtol * np.abs(_finite(x))))
        place = int(np.argmax(apart))
        if apart[place] > self.largest:
            self.largest, self.at = float(apart[place]), begin + place
            self.expected, self.got = str(one[place]), str(other[place])
        finite = np.where(both, apart, 0.0)
        x, y = np.where(both, x, 0), np.where(both, y, 0)
        size = np.maximum(np.abs(x), np.abs(y))
        self.relative = max(self.relative, float(relative(finite, size).max()))
        self.total += float(finite.sum())
        self.finite += int(np.count_nonzero(both))
        self.product += float(np.vdot(x, y).real)
        self.left += float(np.vdot(x, x).real)
        self.right += float(np.vdot(y, y).real)
        self.apart += float(np.vdot(finite, finite))

    def measure(self, spec: TensorSpec, *, same_bytes: bool) -> Measure:
        """Return what came out, for tensors of the shape of ``spec``."""
        index = np.unravel_index(self.at, spec.shape) if spec.numel else ()
        return Measure(
            largest=max(self.largest, 0.0),
            relative=self.relative,
            mean=self.total / max(self.finite, 1),
            error=self._error(),
            cosine=1.0 if same_bytes else self._cosine(),
            index=tuple(int(place) for place in index),
            expected=self.expected,
            got=self.got,
            beyond=self.beyond,
            atol=self.atol,
            rtol=self.rtol,
            same_bytes=same_bytes,
        )

    def _error(self) -> float:
        if not self.left:
            return float(self.apart > 0)
        error = math.sqrt(self.apart / self.left)
        return math.inf if math.isnan(error) else error

    def _cosine(self) -> float:
        if not (self.left and self.right):
            return float(self.left == self.right)
        cosine = self.product / (math.sqrt(self.left) * math.sqrt(self.right))
        return max(-1.0, min(1.0, cosine)) if math.isfinite(cosine) else 0.0
