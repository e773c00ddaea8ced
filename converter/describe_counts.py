"""What is counted of values as they pass by: their statistics, zeros, NaN and infinity."""

from __future__ import annotations

from typing import Any

import numpy as np

from converter.manifest import Statistics
from converter.moments import StatisticsStream
from converter.numpy_dtypes import NUMPY_DTYPES
from converter.spec import DTYPES

# Bits are several times as quick to compare as values of dtypes that the processor lacks.
_UNSIGNED = {"F16": "<u2", "BF16": "<u2", "F8_E5M2": "u1", "F8_E4M3": "u1"}
_WITHOUT_MINUS_ZERO = {"F8_E4M3FNUZ", "F8_E5M2FNUZ"}
_WITHOUT_ZERO = {"F8_E8M0"}


class Counts:
    """Counts of one tensor, whose bytes are added in row-major order in whole blocks."""

    def __init__(self, dtype: str) -> None:
        whole = DTYPES[dtype].bits >= 8
        self._dtype = dtype
        self._stream = StatisticsStream(dtype)
        self.zeros: int | None = 0 if whole else None
        self.nan: int | None = 0 if whole else None

    @property
    def nonfinite(self) -> int | None:
        """How many values are NaN or infinite; None where they cannot be told apart."""
        return None if self.nan is None else self._stream.nonfinite

    def add(self, chunk: memoryview) -> None:
        """Add the next values."""
        before = self._stream.nonfinite
        self._stream.add(chunk)
        if self.zeros is None or self.nan is None:
            return
        self.zeros += _zeros(chunk, self._dtype)
        if self._stream.nonfinite > before:
            values = np.frombuffer(chunk, NUMPY_DTYPES[self._dtype])
            self.nan += int(np.count_nonzero(np.isnan(values)))

    def stats(self) -> Statistics | None:
        """Return the statistics; None for values that have none."""
        return self._stream.result()


def _zeros(chunk: memoryview, dtype: str) -> int:
    """Return how many values are 0, of either sign."""
    if dtype in _WITHOUT_ZERO:
        return 0
    if dtype in _WITHOUT_MINUS_ZERO:
        values: np.ndarray[Any, Any] = np.frombuffer(chunk, np.uint8)
    elif dtype in _UNSIGNED:
        values = np.frombuffer(chunk, _UNSIGNED[dtype]) << 1  # without the sign
    else:
        values = np.frombuffer(chunk, NUMPY_DTYPES[dtype])
    return int(values.size - np.count_nonzero(values))
