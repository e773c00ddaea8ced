"""A regular file of a stranger, opened once and read by position."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from converter import digest, strict_json
from converter.canonical import MAX_HEADER_BYTES
from converter.errors import SourceError
from converter.positional import WriteBuffer, open_flags, read_at

# O_NONBLOCK: opening a FIFO without a writer would wait for ever.
_FLAGS = open_flags("O_RDONLY", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_NOINHERIT", "O_BINARY")


class RegularFile:
    """A file opened for reading; symbolic links are followed, as the Hugging Face cache needs.

    Raises SourceError when it is absent, cannot be read, or is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, _FLAGS)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        self._stat = os.fstat(self._fd)
        if not stat.S_ISREG(self._stat.st_mode):
            self.close()
            raise SourceError("not a regular file", code="kind", where=str(path))

    @property
    def size_bytes(self) -> int:
        """Size when it was opened."""
        return self._stat.st_size

    def read_into(self, buffer: WriteBuffer, position: int) -> None:
        """Fill ``buffer`` from byte ``position`` on; raises SourceError."""
        try:
            read_at(self._fd, buffer, position)
        except (OSError, EOFError) as error:
            raise self._unreadable(error) from error

    def read(self, position: int, size: int) -> bytearray:
        """Return ``size`` bytes from byte ``position`` on; raises SourceError."""
        buffer = bytearray(size)
        self.read_into(buffer, position)
        return buffer

    def sha256(self) -> str:
        """Return the digest of the file; raises SourceError."""
        try:
            return digest.sha256_range(self._fd, 0, self.size_bytes)
        except (OSError, EOFError) as error:
            raise self._unreadable(error) from error

    def check_unchanged(self) -> None:
        """Raise SourceError if the file was written to since it was opened."""
        now = os.fstat(self._fd)
        if _identity(now) != _identity(self._stat):
            raise SourceError(
                "the file changed while it was read",
                code="changed",
                where=str(self.path),
                expected=f"{self.size_bytes:,} bytes, last changed as when it was opened",
                got=f"{now.st_size:,} bytes, changed since",
                hint="run again when nothing writes to it",
            )

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _unreadable(self, error: Exception) -> SourceError:
        absent = isinstance(error, FileNotFoundError)
        reason = error.strerror if isinstance(error, OSError) else error
        return SourceError(
            "there is no such file" if absent else f"the file cannot be read: {reason}",
            code="absent" if absent else "unreadable",
            where=str(self.path),
        )


def read_json(path: Path) -> object:
    """Return the strict JSON of the file at ``path``; raises SourceError."""
    file = RegularFile(path)
    try:
        if file.size_bytes > MAX_HEADER_BYTES:
            raise SourceError(
                "too large a JSON file",
                code="json",
                where=str(path),
                expected=f"at most {MAX_HEADER_BYTES:,} bytes",
                got=f"{file.size_bytes:,} bytes",
            )
        return strict_json.parse(bytes(file.read(0, file.size_bytes)), where=str(path))
    finally:
        file.close()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    # Not the time of change of the inode: replacing the name, which is harmless, changes it too.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
