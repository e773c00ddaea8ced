"""Arithmetic whose every bit is fixed: float64, in an order known beforehand, rounded once.

Only elementwise operations of IEEE 754 are used (add, multiply, divide, square root, convert):
each has one correctly rounded result. A library's reduction has none, because its order follows
the CPU's vector width and the number of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

# By size in bytes: torch cannot assign to a part of an F8 tensor, but to its bits.
_RAW = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def to_float64(tensor: Tensor) -> Tensor:
    """Return the values as float64: exactly, but for 64-bit integers beyond 2**53."""
    return tensor.to(torch.float64)


def fixed_order_sum(values: Tensor, dim: int) -> Tensor:
    """Return the sum over ``dim``, in an order that depends on its size alone.

    The second half is added to the first until one is left; the last of an odd number is carried.

    >>> fixed_order_sum(torch.tensor([[1.0, 2.0, 4.0]]), 1)
    tensor([7.])
    """
    if values.shape[dim] == 0:
        return values.new_zeros([*values.shape[:dim], *values.shape[dim + 1 :]])
    while (size := values.shape[dim]) > 1:
        half = size // 2
        halves = values.narrow(dim, 0, half) + values.narrow(dim, half, half)
        last = values.narrow(dim, 2 * half, size % 2)
        values = torch.cat((halves, last), dim) if size % 2 else halves
    return values.squeeze(dim)


def round_once(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return float ``values`` rounded to the nearest of ``dtype``, ties to even.

    Every NaN becomes the one quiet NaN of ``dtype``, since torch's choice depends on the CPU.
    Values beyond the largest of ``dtype`` are for the caller to refuse: F8 may saturate.
    """
    if values.dtype == dtype:
        return values
    nan = torch.isnan(values.to(torch.float32) if values.itemsize == 1 else values)
    if values.dtype == torch.float64 and dtype.itemsize < 4:
        values = _round_to_odd(values)
    rounded = values.to(dtype)
    if bool(nan.any()):
        raw = _RAW[dtype.itemsize]
        rounded.view(raw)[nan] = torch.tensor(torch.nan, dtype=dtype).view(raw)
    return rounded


def _round_to_odd(values: Tensor) -> Tensor:
    """Return float64 ``values`` as float32, an inexact one as its neighbour of odd significand.

    Torch converts float64 to a narrow dtype by way of float32, which rounds twice. An odd last
    bit keeps what the second rounding needs to know, so that it gives the result of one.

    Source: Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums: proved
    algorithms using rounding to odd". It asks for 2 bits more than the target has; float32 has 13.
    """
    nearest = values.to(torch.float32)
    back = nearest.to(torch.float64)
    bits = nearest.view(torch.int32)
    # The bits of a float count its magnitudes: one less is the next number towards zero.
    bits -= (back.abs() > values.abs()).to(torch.int32)
    bits |= (back != values).to(torch.int32)
    return nearest
