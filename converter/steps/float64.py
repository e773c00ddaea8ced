"""Arithmetic whose every bit is fixed: float64, in an order known beforehand, rounded once.

Only elementwise operations of IEEE 754 are used (add, multiply, divide, square root, convert):
each has one correctly rounded result. A library's reduction has none, because its order follows
the CPU's vector width and the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from converter.errors import ValueRefusedError
from converter.numpy_dtypes import NUMPY_DTYPES
from converter.steps.dtypes import FLOATS
from converter.steps.step import Array, Number

Floats64: TypeAlias = NDArray[np.float64]

# By size in bytes, what the bits of a float are as a number.
_RAW = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

# The quiet NaN of each dtype; a library's choice of one depends on how it converts.
_NAN_BITS = {
    "F64": 0x7FF8_0000_0000_0000,
    "F32": 0x7FC0_0000,
    "F16": 0x7E00,
    "BF16": 0x7FC0,
    "F8_E5M2": 0x7F,
    "F8_E4M3": 0x7F,
    "F8_E5M2FNUZ": 0x80,
    "F8_E4M3FNUZ": 0x80,
}


@np.errstate(all="ignore")
def to_float64(array: Array) -> Floats64:
    """Return the values as float64: exactly, but for 64-bit integers beyond 2**53."""
    return array.astype(np.float64)


def fixed_order_sum(values: Floats64, dim: int) -> Floats64:
    """Return the sum over ``dim``, in an order that depends on its size alone.

    The second half is added to the first until one is left; the last of an odd number is carried.

    >>> fixed_order_sum(np.array([[1.0, 2.0, 4.0]]), 1)
    array([7.])
    """
    size = values.shape[dim]
    if size == 0:
        return np.zeros((*values.shape[:dim], *values.shape[dim + 1 :]))
    rest = values
    sums = np.empty((*values.shape[:dim], size // 2 + size % 2, *values.shape[dim + 1 :]))
    while size > 1:
        half, odd = divmod(size, 2)
        np.add(
            _part(rest, dim, 0, half), _part(rest, dim, half, 2 * half), _part(sums, dim, 0, half)
        )
        if odd:
            _part(sums, dim, half, half + 1)[...] = _part(rest, dim, 2 * half, size)
        rest, size = sums, half + odd
    return _part(rest, dim, 0, 1).squeeze(dim)


def _part(values: Floats64, dim: int, begin: int, end: int) -> Floats64:
    return values[(*((slice(None),) * dim), slice(begin, end))]


@np.errstate(all="ignore")
def round_once(values: Array, dtype: str) -> Array:
    """Return float ``values`` rounded to the nearest of ``dtype``, ties to even.

    Every NaN becomes the one quiet NaN of ``dtype``. Values beyond the largest of ``dtype`` are
    for the caller to refuse.
    """
    target = NUMPY_DTYPES[dtype]
    if values.dtype == target:
        return values
    nan = np.isnan(values)
    if values.dtype == np.float64 and target.itemsize < 4:
        values = _round_to_odd(values)
    rounded = values.astype(target)
    if nan.any():
        raw: Any = _RAW[target.itemsize]
        rounded.view(raw)[nan] = _NAN_BITS[dtype]
    return rounded


def element(value: Number, dtype: str) -> Array:
    """Return ``value``, which ``dtype`` takes, as a tensor without dims; a float rounds once."""
    if dtype in _NAN_BITS:
        return round_once(np.array(value, np.float64), dtype)
    return np.array(value, NUMPY_DTYPES[dtype])


@np.errstate(all="ignore")
def rounded_result(step: str, result: Floats64, dtype: str, inputs: Sequence[Array]) -> Array:
    """Return the ``result`` of arithmetic on ``inputs`` rounded once to the float ``dtype``.

    What ``inputs`` have as NaN or infinity stays so. Raises ValueRefusedError where finite ones
    give a number beyond the largest of ``dtype``.
    """
    largest = FLOATS[dtype].largest
    # Written so that NaN, as of infinity times zero, counts too.
    beyond = ~(np.abs(result) <= largest)
    if beyond.any():
        for array in inputs:
            beyond &= np.isfinite(array)
        if count := int(beyond.sum()):
            raise ValueRefusedError(
                f"{step}: {count} of {result.size} values overflow {dtype}",
                expected=f"magnitudes up to {largest:g}",
                got=f"{float(np.abs(result[beyond]).max())!r}",
                hint="a wider dtype holds them: cast before, or state one",
            )
    return round_once(result, dtype)


def _round_to_odd(values: Floats64) -> NDArray[np.float32]:
    """Return float64 ``values`` as float32, an inexact one as its neighbour of odd significand.

    Narrow dtypes are converted to by way of float32, which rounds twice. An odd last bit keeps
    what the second rounding needs to know, so that it gives the result of one.

    Source: Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums: proved
    algorithms using rounding to odd". It asks for 2 bits more than the target has; float32 has 13.
    """
    nearest = values.astype(np.float32)
    back = nearest.astype(np.float64)
    bits = nearest.view(np.int32)
    # The bits of a float count its magnitudes: one less is the next number towards zero.
    bits -= (np.abs(back) > np.abs(values)).astype(np.int32)
    bits |= (back != values).astype(np.int32)
    return nearest
