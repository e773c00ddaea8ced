"""Statistics of values that pass by in blocks: the same bits on every machine, in little memory.

They are computed in float64 over fixed blocks combined in order. Within a block the order is
that of ``steps.float64``, in place on arrays that stay in the cache.
Source of the combination: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise
algorithm for computing sample variances".
"""

from __future__ import annotations

import math
import operator
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from converter.manifest import Statistics
from converter.numpy_dtypes import NUMPY_DTYPES
from converter.spec import DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

# Measured: at 1 MiB of float64, with as much again to work in, everything stays in the cache.
BLOCK_ELEMENTS = 1 << 17

# A power of two, so that counting values in it changes no bit of them. F64 reaches 2**1024.
_LARGE_UNIT = 2.0**544

# Measured: so many are added up sooner one by one than by calls of numpy.
_FEW = 64

_WITHOUT = {"BOOL", "C64"}


@dataclass(frozen=True, slots=True)
class _Moments:
    """Count, mean, sum of squared deviations, smallest and largest of some finite values."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def joined(self, other: _Moments) -> _Moments:
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        between = apart * apart * (self.count * other.count / count)
        return _Moments(
            count=count,
            mean=self.mean + apart * (other.count / count),
            squares=self.squares + other.squares + between,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
        )

    def statistics(self, *, unit: float, nonfinite: int) -> Statistics:
        if not self.count:
            return Statistics(0.0, 0.0, 0.0, 0.0, nonfinite)
        # Adding 0.0 turns -0.0 into 0.0: which of equal zeros is smallest depends on the CPU.
        return Statistics(
            mean=self.mean * unit,
            std=math.sqrt(self.squares / self.count) * unit,
            min=self.low * unit + 0.0,
            max=self.high * unit + 0.0,
            nonfinite=nonfinite,
        )


class StatisticsStream:
    """The statistics of one tensor, whose bytes are added in row-major order.

    Integers and floats of a byte and more have statistics; others have none, but what is not
    finite in a complex tensor is counted all the same.
    """

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._counts = DTYPES[dtype].bits >= 8 and dtype not in _WITHOUT
        self._moments = _Moments()
        self._in_large_units = _Moments()
        self.nonfinite = 0

    def add(self, data: memoryview) -> None:
        """Add the next values; only the last call may have another size than whole blocks."""
        if self._dtype == "C64":
            self.nonfinite += int(np.count_nonzero(~np.isfinite(np.frombuffer(data, np.complex64))))
        if not self._counts:
            return
        size = BLOCK_ELEMENTS * DTYPES[self._dtype].bits // 8
        with np.errstate(all="ignore"):
            for begin in range(0, len(data), size):
                self._add_block(data[begin : begin + size])

    def result(self) -> Statistics | None:
        """Return the statistics; None when there are no values, or none that can be ordered."""
        if not self._moments.count and not self.nonfinite:
            return None
        if not self._counts:
            return None
        if math.isfinite(self._moments.squares):
            return self._moments.statistics(unit=1.0, nonfinite=self.nonfinite)
        # Squares of F64 values overflow beyond 2**512.
        return self._in_large_units.statistics(unit=_LARGE_UNIT, nonfinite=self.nonfinite)

    def _add_block(self, data: memoryview) -> None:
        values, low, high = _float64(data, self._dtype)
        if not (math.isfinite(low) and math.isfinite(high)):
            count = len(values)
            values = values[np.isfinite(values)]
            self.nonfinite += count - len(values)
            low, high = (values.min().item(), values.max().item()) if len(values) else (0.0, 0.0)
        if not len(values):
            return
        if self._dtype == "F64":
            large = _of_block(values / _LARGE_UNIT, low / _LARGE_UNIT, high / _LARGE_UNIT)
            self._in_large_units = self._in_large_units.joined(large)
        self._moments = self._moments.joined(_of_block(values, low, high))


class _Workspace(threading.local):
    """Arrays to work in, a set for each thread; what is in them is used at once."""

    def __init__(self) -> None:
        self.values = np.empty(BLOCK_ELEMENTS)
        self.halves = np.empty(BLOCK_ELEMENTS // 2 + 1)


_workspace = _Workspace()


def _float64(data: memoryview, dtype: str) -> tuple[Floats, float, float]:
    """Return a block's values, to be used before the next, with the smallest and largest."""
    values = _workspace.values[: len(data) * 8 // DTYPES[dtype].bits]
    native = np.frombuffer(data, NUMPY_DTYPES[dtype])
    np.copyto(values, native, casting="unsafe")
    # Numpy's own dtypes are quicker to compare as they are.
    compared = native if native.dtype.isbuiltin == 1 and native.dtype != np.float16 else values
    return values, float(compared.min()), float(compared.max())


def _of_block(values: Floats, low: float, high: float) -> _Moments:
    """Return the moments of at least one value; works in place, and leaves other values there."""
    count = len(values)
    mean = _sum(values) / count
    np.subtract(values, mean, out=values)
    np.multiply(values, values, out=values)
    return _Moments(count, mean, _sum(values), low, high)


def _sum(values: Floats) -> float:
    """Return the sum of at least one value, in the order of ``float64.fixed_order_sum``."""
    rest, size = values, len(values)
    while size > _FEW:
        half, odd = divmod(size, 2)
        into = _workspace.halves[: half + odd]
        np.add(rest[:half], rest[half : 2 * half], out=into[:half])
        if odd:
            into[half] = rest[2 * half]
        rest, size = into, half + odd
    few: list[float] = rest.tolist()
    while len(few) > 1:
        half = len(few) // 2
        few = [*map(operator.add, few[:half], few[half : 2 * half]), *few[2 * half :]]
    return few[0]
