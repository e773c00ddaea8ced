"""A file that is being written, and the ways to it: through the system's cache, or past it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from converter.positional import ReadBuffer, open_flags, write_at

FILE_MODE = 0o644

# O_RDWR: what was written is digested through the same opening.
_FLAGS = open_flags(
    "O_RDWR", "O_CREAT", "O_EXCL", "O_NOFOLLOW", "O_CLOEXEC", "O_NOINHERIT", "O_BINARY"
)
_DIRECT = getattr(os, "O_DIRECT", 0)
_DIRECT_FLAGS = open_flags("O_WRONLY", "O_NOFOLLOW", "O_CLOEXEC") | _DIRECT

# What a write past the cache begins at and is a multiple of, on every common disk.
_SECTOR_BYTES = 4096

# Brought to disk meanwhile, so that the disk works while there is more to be made.
_FLUSHED_BYTES = 256 << 20

_UNKNOWN = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class DiskFile:
    """A new file of a given size, written from any thread; raises OSError throughout.

    What the system's cache takes of a large file must be found, filled, and in the end written all
    the same, which costs more than the rest of a conversion: whole blocks go past it. Where the
    system or the file system has no such way, everything goes through the cache.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.fd = create(path)
        self._path = path
        self._direct: int | None = None
        self._has_direct = bool(_DIRECT)
        self._lock = threading.Lock()
        self._unflushed_bytes = 0
        try:
            _reserve(self.fd, size_bytes)
        except BaseException:
            os.close(self.fd)
            raise

    def write(self, position: int, data: ReadBuffer) -> None:
        """Write to the cache."""
        # Systems let one write to a file at a time; who waits for it there keeps a core busy.
        with self._lock:
            write_at(self.fd, data, position)
            self._unflushed_bytes += memoryview(data).nbytes
            if self._unflushed_bytes >= _FLUSHED_BYTES:
                self._unflushed_bytes = 0
                _flush(self.fd)

    def write_whole(self, position: int, data: memoryview) -> None:
        """Write past the cache where that can be done; ``data`` begins at a page of memory."""
        if self._has_direct and not position % _SECTOR_BYTES and not len(data) % _SECTOR_BYTES:
            try:
                write_at(self._opened_direct(), data, position)
                return
            except OSError as error:
                if error.errno not in _UNKNOWN:
                    raise
                self._has_direct = False
        self.write(position, data)

    def flush(self) -> None:
        """Wait until everything is on the disk, whatever way it went."""
        os.fsync(self.fd)

    def end_whole(self) -> None:
        """Let go of what only ``write_whole`` needs, of which there are few."""
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def close(self) -> None:
        """Close the file."""
        self.end_whole()
        os.close(self.fd)

    def _opened_direct(self) -> int:
        with self._lock:
            if self._direct is None:
                self._direct = os.open(self._path, _DIRECT_FLAGS)
            return self._direct


_flush: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


def create(path: Path) -> int:
    """Create a file and return its descriptor; one that exists is an OSError."""
    fd = os.open(path, _FLAGS, FILE_MODE)
    os.chmod(path, FILE_MODE)  # whatever the umask
    return fd


def _reserve(fd: int, size: int) -> None:
    """Claim the disk space now, so that a full disk is found before the work is done."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
        else:
            return
    os.ftruncate(fd, size)
