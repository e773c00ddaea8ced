"""A tensor of an open checkpoint, and its bytes one block after another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from converter.positional import WriteBuffer
from converter.source.source import Source
from converter.spec import DTYPES, TensorSpec


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of an open checkpoint, ``name`` being the one that it is stored by."""

    source: Source
    name: str
    spec: TensorSpec

    def read_into(self, buffer: WriteBuffer, begin: int) -> None:
        """Fill ``buffer`` with its bytes from byte ``begin`` on; raises SourceError."""
        self.source.read_into(self.name, buffer, begin)


def blocks(tensor: Stored, size_bytes: int) -> Iterator[memoryview]:
    """Yield a tensor's bytes in blocks of that size, each overwritten by the next.

    Raises SourceError.
    """
    total = tensor.spec.nbytes
    buffer = memoryview(bytearray(min(size_bytes, total)))
    for begin in range(0, total, size_bytes):
        block = buffer[: total - begin]
        tensor.read_into(block, begin)
        yield block


class Sameness:
    """Whether all elements of a tensor, whose blocks are added in order, have the same bytes.

    A dtype of less than a byte goes by bytes.
    """

    def __init__(self, dtype: str) -> None:
        self.holds = True
        self._width = max(1, DTYPES[dtype].bits // 8)
        self._first = b""

    def add(self, block: memoryview) -> None:
        """Add the next elements."""
        if not self.holds:
            return
        self._first = self._first or bytes(block[: self._width])
        few = block[: self._width << 8]  # mostly, they tell already
        self.holds = all(
            bytes(part) == self._first * (len(part) // self._width) for part in (few, block)
        )
