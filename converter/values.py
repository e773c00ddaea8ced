"""What the values of a tensor say, and the bytes that hold them."""

from __future__ import annotations

import numpy as np

from converter.steps.float64 import to_float64
from converter.steps.step import Array


def disprove(expect: str, array: Array) -> str | None:
    """Return how the values differ from ``arange`` or ``lower_triangular``; None: they do not."""
    if array.dtype.kind == "c":
        return "complex numbers"
    if expect == "arange":
        wanted = np.arange(array.size).reshape(array.shape)
    else:
        wanted = np.tril(np.ones(array.shape, np.int64))
    exact = array.dtype.kind in "biu"
    values = array if exact else to_float64(array)
    wrong = values != wanted
    if not exact:
        wrong |= np.signbit(values)  # -0.0 is no 0: what is proven is made again bit for bit
    differs = np.flatnonzero(wrong)
    if not len(differs):
        return None
    first = int(differs[0])
    got, want = values.reshape(-1)[first], wanted.reshape(-1)[first]
    shown = f"{int(got)}, not {want}" if exact else f"{float(got)}, not {float(want)}"
    count = f"{len(differs)} of {array.size}"
    return f"{count} values differ, the first at position {first}: {shown}"


def bytes_of(array: Array) -> memoryview:
    """Return the bytes of an array in row-major order."""
    # A single element counts as contiguous whatever its stride, which view() refuses.
    flat = array.reshape(-1) if array.flags.c_contiguous and array.size > 1 else array.flatten()
    return flat.view(np.uint8).data
