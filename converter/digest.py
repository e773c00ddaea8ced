"""sha256 of bytes, and of ranges of an open file, in constant memory.

Digests are lowercase hexadecimal, as ``sha256sum`` and the Hugging Face Hub write them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from converter.positional import ReadBuffer, read_at

GivenUp: TypeAlias = Callable[[], bool]

# Measured: blocks of 1 to 4 MiB stay in cache between the read and the digest.
BLOCK_BYTES = 1 << 20


def sha256(data: ReadBuffer) -> str:
    """Return the digest of ``data``."""
    return hashlib.sha256(data).hexdigest()


def never() -> bool:
    """Return False."""
    return False


def sha256_range(
    fd: int,
    begin: int,
    end: int,
    *,
    block_bytes: int = BLOCK_BYTES,
    given_up: GivenUp = never,
) -> str:
    """Return the digest of the bytes ``[begin, end)`` of an open file.

    Leaves the position of ``fd`` alone where the platform can. Raises EOFError when the file ends
    before ``end``, OSError, and CancelledError at the block after ``given_up`` returns True.
    """
    digest = hashlib.sha256()
    for block in blocks(fd, begin, end, block_bytes=block_bytes):
        if given_up():
            # Imported here since it takes as long as all else that this module needs.
            from concurrent.futures import CancelledError

            raise CancelledError
        digest.update(block)
    return digest.hexdigest()


def update_from(
    digest: hashlib._Hash, fd: int, begin: int, end: int, *, block_bytes: int = BLOCK_BYTES
) -> None:
    """Add the bytes ``[begin, end)`` of an open file to ``digest``; raises as ``sha256_range``."""
    for block in blocks(fd, begin, end, block_bytes=block_bytes):
        digest.update(block)


def blocks(
    fd: int, begin: int, end: int, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[memoryview]:
    """Yield the bytes ``[begin, end)`` of an open file, each block overwritten by the next.

    Raises as ``sha256_range``.
    """
    block = memoryview(bytearray(min(block_bytes, end - begin)))
    for position in range(begin, end, block_bytes):
        part = block[: end - position]
        read_at(fd, part, position)
        yield part
