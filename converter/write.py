"""Writing the files of a canonical directory: whole, on disk, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from converter import digest
from converter.canonical import METADATA, Placement, encode_header
from converter.errors import ExecutionError
from converter.positional import ReadBuffer, open_flags, write_at

FILE_MODE = 0o644

# What is left to digest when the last byte is written; and no lock is taken for less.
_FOLLOWED_BYTES = 8 << 20

# Brought to disk meanwhile, so that the disk works while there is more to be made.
_FLUSHED_BYTES = 256 << 20

# O_RDWR: what was written is digested through the same opening.
_FLAGS = open_flags(
    "O_RDWR", "O_CREAT", "O_EXCL", "O_NOFOLLOW", "O_CLOEXEC", "O_NOINHERIT", "O_BINARY"
)

_HINTS = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some of your quota, or write to another disk",
    errno.EFBIG: "raise the limit of file sizes, or give a smaller --max-shard-size",
    errno.EMFILE: "give a larger --max-shard-size, or raise the limit of open files",
    errno.EBUSY: "a mount point cannot be replaced; name a directory inside it",
    errno.EXDEV: "a mount point cannot be replaced; name a directory inside it",
    errno.EROFS: "the file system is read-only; write elsewhere",
    errno.EACCES: "write where you have the permission to",
    errno.EPERM: "write where you have the permission to",
}
_CANNOT_RESERVE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class WeightsFile:
    """One weights file, created at its full size; the header is written first.

    The bytes of tensors may come from any thread in any order, each byte once. Raises
    ExecutionError when the file cannot be created or written.
    """

    def __init__(
        self,
        path: Path,
        placements: Sequence[Placement],
        metadata: Mapping[str, str] = METADATA,
    ) -> None:
        header = encode_header(placements, metadata)
        self.path = path
        self.header_sha256 = digest.sha256(header)
        self.data_start = len(header)
        self.size_bytes = len(header) + max((tensor.end for tensor in placements), default=0)
        self._missing_bytes = self.size_bytes - self.data_start
        self._complete_bytes = self.data_start  # from the start of the file, without a gap
        self._ahead: dict[int, int] = {}  # begin and end of what was written beyond a gap
        self._abandoned = False
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        with io_errors(path):
            self._fd = _create(path)
            try:
                _reserve(self._fd, self.size_bytes)
                write_at(self._fd, header, 0)
            except BaseException:
                os.close(self._fd)
                raise

    def write(self, begin: int, data: ReadBuffer) -> None:
        """Write ``data`` at ``begin``, in bytes from the start of the file's data."""
        size = memoryview(data).nbytes
        begin += self.data_start
        if begin < self.data_start or begin + size > self.size_bytes:
            raise ValueError(f"bytes {begin} to {begin + size} lie outside of {self.path.name}")
        if not size:
            return
        # Systems let one write to a file at a time; who waits for it there keeps a core busy.
        with self._writing, io_errors(self.path):
            write_at(self._fd, data, begin)
        with self._changed:
            self._missing_bytes -= size
            self._ahead[begin] = begin + size
            while self._complete_bytes in self._ahead:
                self._complete_bytes = self._ahead.pop(self._complete_bytes)
            self._changed.notify_all()

    def sha256(self) -> str:
        """Return the digest of the whole file, read back close behind those who write it.

        What is read is brought to disk on the way, so that less is left to wait for at the end.
        Raises CancelledError when ``abandon`` is called meanwhile.
        """
        whole = hashlib.sha256()
        position = flushed = 0
        while position < self.size_bytes:
            end = self._wait_for_more(position)
            with io_errors(self.path):
                digest.update_from(whole, self._fd, position, end)
                if end - flushed >= _FLUSHED_BYTES:
                    _flush(self._fd)
                    flushed = end
            position = end
        return whole.hexdigest()

    def abandon(self) -> None:
        """Let nobody wait for bytes that will not come."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def _wait_for_more(self, position: int) -> int:
        """Return up to where the file is complete, once that is a good piece beyond a position."""
        enough = min(position + _FOLLOWED_BYTES, self.size_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self._complete_bytes >= enough)
            if self._abandoned:
                raise CancelledError
            return self._complete_bytes

    def close(self) -> None:
        """Bring the file to disk and close it.

        Raises RuntimeError if the bytes written are not as many as the tensors have.
        """
        try:
            if self._missing_bytes:
                raise RuntimeError(f"{self.path}: {self._missing_bytes} bytes were not written")
            with io_errors(self.path):
                os.fsync(self._fd)
        finally:
            os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            os.close(self._fd)


def write_file(path: Path, data: bytes) -> None:
    """Create a file that holds ``data``, on disk; raises ExecutionError."""
    with io_errors(path):
        fd = _create(path)
        try:
            write_at(fd, data, 0)
            os.fsync(fd)
        finally:
            os.close(fd)


@contextmanager
def io_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into an ExecutionError that says where, why, and what can be done."""
    try:
        yield
    except OSError as error:
        raise ExecutionError(
            f"cannot be written: {error.strerror}",
            code="io",
            where=str(error.filename or path),
            hint=_HINTS.get(error.errno or 0),
        ) from error


_flush: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


def _create(path: Path) -> int:
    fd = os.open(path, _FLAGS, FILE_MODE)
    os.chmod(path, FILE_MODE)  # whatever the umask
    return fd


def _reserve(fd: int, size: int) -> None:
    """Claim the disk space now, so that a full disk is found before the work is done."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise
        else:
            return
    os.ftruncate(fd, size)
