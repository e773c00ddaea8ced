"""How far values are apart, element by element, in float64."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[Any]
Floats64: TypeAlias = NDArray[np.float64]


def distance(here: Values, there: Values, one: Values, other: Values) -> Floats64:
    """Return ``|here - there|``: of integers of 64 bits without rounding them first.

    ``one`` and ``other`` are the same values in float64, or complex128.
    """
    if here.dtype == there.dtype and here.dtype.kind in "iu" and here.dtype.itemsize == 8:
        # Modulo 2**64, which the larger less the smaller never reaches.
        larger, smaller = np.maximum(here, there), np.minimum(here, there)
        return (larger.view(np.uint64) - smaller.view(np.uint64)).astype(np.float64)
    apart: Floats64 = np.abs(one - other)
    return apart


def relative(apart: Floats64, size: Floats64) -> Floats64:
    """Return distances over the larger magnitude of both values, ``size``; 0 where both are 0."""
    return np.divide(apart, size, out=np.zeros_like(apart), where=size > 0)
