"""sha256 of bytes, and of ranges of an open file, in constant memory.

Digests are lowercase hexadecimal, as ``sha256sum`` and the Hugging Face Hub write them.
"""

from __future__ import annotations

import hashlib

from converter.positional import ReadBuffer, read_at

# Measured: blocks of 1 to 4 MiB stay in cache between the read and the digest.
BLOCK_BYTES = 1 << 20


def sha256(data: ReadBuffer) -> str:
    """Return the digest of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_range(fd: int, begin: int, end: int) -> str:
    """Return the digest of the bytes ``[begin, end)`` of an open file.

    Leaves the position of ``fd`` alone where the platform can. Raises EOFError when the file ends
    before ``end``, and OSError.
    """
    digest = hashlib.sha256()
    block = memoryview(bytearray(min(BLOCK_BYTES, end - begin)))
    for position in range(begin, end, BLOCK_BYTES):
        part = block[: end - position]
        read_at(fd, part, position)
        digest.update(part)
    return digest.hexdigest()
