"""A regular file of a stranger, opened once and read by position."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from converter import digest, strict_json
from converter.canonical import MAX_HEADER_BYTES
from converter.digest import GivenUp, never
from converter.errors import ExecutionError, SourceError
from converter.positional import WriteBuffer, open_flags, read_at
from converter.source.links import require_inside

# O_NONBLOCK: opening a FIFO without a writer would wait for ever.
_FLAGS = open_flags("O_RDONLY", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_NOINHERIT", "O_BINARY")


# Long enough that threads which hold the interpreter's lock, as imports do, seldom stop it.
_DIGEST_BYTES = 16 << 20


class RegularFile:
    """A file opened for reading, by whatever links its path leads to it.

    ``within`` is the folder in which the file was found, unless the user named the file itself:
    then links may not lead out of it. Raises SourceError when the file is absent, cannot be read,
    is not a regular file, or lies elsewhere.
    """

    def __init__(self, path: Path, *, within: Path | None = None) -> None:
        self.path = path
        self._fd = -1
        try:
            # Opening a device can have effects of its own; what is opened is looked at again.
            self._require_regular(os.stat(path))
            self._fd = os.open(path, _FLAGS)
            self._stat = os.fstat(self._fd)
            self._require_regular(self._stat)
            if within is not None:
                require_inside(path, within, self._stat)
        except (OSError, ValueError) as error:
            self.close()
            raise self._unreadable(error) from error
        except SourceError:
            self.close()
            raise

    def _require_regular(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise SourceError("not a regular file", code="kind", where=str(self.path))

    @property
    def size_bytes(self) -> int:
        """Size when it was opened."""
        return self._stat.st_size

    def fileno(self) -> int:
        """Return the file descriptor, for a process that is to read the same opening."""
        return self._fd

    def read_into(self, buffer: WriteBuffer, position: int) -> None:
        """Fill ``buffer`` from byte ``position`` on; raises SourceError."""
        try:
            read_at(self._fd, buffer, position)
        except (OSError, EOFError) as error:
            raise self._unreadable(error) from error

    def read(self, position: int, size: int) -> bytearray:
        """Return ``size`` bytes from byte ``position`` on.

        Raises SourceError, and ExecutionError when they do not fit in memory.
        """
        try:
            buffer = bytearray(size)
        except MemoryError as error:
            raise ExecutionError(
                "a tensor does not fit in memory",
                code="memory",
                where=str(self.path),
                expected=f"{size:,} bytes of free memory",
                hint="convert it on a machine with more memory",
            ) from error
        self.read_into(buffer, position)
        return buffer

    def sha256(self, given_up: GivenUp = never) -> str:
        """Return the digest of the file.

        Raises SourceError, and CancelledError soon after ``given_up`` returns True.
        """
        size, block = self.size_bytes, _DIGEST_BYTES
        try:
            return digest.sha256_range(self._fd, 0, size, block_bytes=block, given_up=given_up)
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


def read_json(path: Path, *, within: Path | None = None) -> object:
    """Return the strict JSON of the file at ``path``; raises SourceError as ``RegularFile``."""
    data = read_whole(path, most_bytes=MAX_HEADER_BYTES, within=within)
    return strict_json.parse(data, where=str(path))


def read_whole(path: Path, *, most_bytes: int, within: Path | None = None) -> bytes:
    """Return a JSON file, unparsed; raises SourceError for a larger one, and as ``RegularFile``."""
    file = RegularFile(path, within=within)
    try:
        if file.size_bytes > most_bytes:
            raise SourceError(
                "too large a JSON file",
                code="json",
                where=str(path),
                expected=f"at most {most_bytes:,} bytes",
                got=f"{file.size_bytes:,} bytes",
            )
        return bytes(file.read(0, file.size_bytes))
    finally:
        file.close()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    # Not the time of change of the inode: replacing the name, which is harmless, changes it too.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
