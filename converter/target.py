"""One canonical tensor in the making: its bytes pass by once, in order, while in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from converter.canonical import PIECE_BYTES
from converter.manifest import Statistics
from converter.moments import StatisticsStream
from converter.spec import TensorSpec

# ``write(name, begin, data)``: the bytes of a tensor from its byte ``begin`` on.
Write: TypeAlias = Callable[[str, int, memoryview], None]

# What is read, digested, counted and written while it is in the cache: a divisor of PIECE_BYTES,
# and whole blocks of statistics whatever the dtype.
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """What is known of a canonical tensor once its bytes are written.

    ``flushed`` is how many values casts rounded to zero.
    """

    sha256: str
    pieces: tuple[str, ...]
    stats: Statistics | None
    flushed: int = 0


class Target:
    """Takes the bytes of one tensor in row-major order: digests, statistics, and ``write``.

    ``advance`` is told the bytes written, as they are.
    """

    def __init__(
        self, name: str, spec: TensorSpec, write: Write, advance: Callable[[int], None]
    ) -> None:
        self.name = name
        self.spec = spec
        self.flushed = 0
        self._write = write
        self._advance = advance
        self._digest = hashlib.sha256()
        self._piece = hashlib.sha256()
        self._pieces: list[str] = []
        self._statistics = StatisticsStream(spec.dtype)
        self._rest = bytearray()
        self._position = 0

    @property
    def nonfinite(self) -> int:
        """How many of the values so far are NaN or infinite."""
        return self._statistics.nonfinite

    def add(self, data: memoryview) -> None:
        """Take the next bytes, as many as there are."""
        if self._rest:
            missing = CHUNK_BYTES - len(self._rest)
            self._rest += data[:missing]
            data = data[missing:]
            if len(self._rest) < CHUNK_BYTES:
                return
            self._pass_on(memoryview(self._rest))
            self._rest = bytearray()
        whole = len(data) - len(data) % CHUNK_BYTES
        for begin in range(0, whole, CHUNK_BYTES):
            self._pass_on(data[begin : begin + CHUNK_BYTES])
        self._rest += data[whole:]

    def finish(self) -> Written:
        """Return what was written. Raises RuntimeError unless it is as much as the tensor has."""
        if self._rest:
            self._pass_on(memoryview(self._rest))
        if self._position != self.spec.nbytes:
            raise RuntimeError(f"{self.name}: {self._position} bytes, not {self.spec.nbytes}")
        if self._pieces and self._position % PIECE_BYTES:
            self._pieces.append(self._piece.hexdigest())
        pieces = tuple(self._pieces) if self.spec.nbytes > PIECE_BYTES else ()
        return Written(self._digest.hexdigest(), pieces, self._statistics.result(), self.flushed)

    def _pass_on(self, chunk: memoryview) -> None:
        begin = self._position
        self._position += len(chunk)
        self._digest.update(chunk)
        if self.spec.nbytes > PIECE_BYTES:
            self._piece.update(chunk)
            if self._position % PIECE_BYTES == 0:
                self._pieces.append(self._piece.hexdigest())
                self._piece = hashlib.sha256()
        self._statistics.add(chunk)
        self._write(self.name, begin, chunk)
        self._advance(len(chunk))
