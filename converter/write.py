"""Writing the files of a canonical directory: whole, on disk, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from converter import digest
from converter.canonical import METADATA, Placement, encode_header
from converter.errors import ExecutionError
from converter.positional import ReadBuffer, write_at
from converter.write_blocks import BlockMemory
from converter.write_disk import DiskFile, create

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


class WeightsFile:
    """One weights file, created at its full size; the header is written first.

    The bytes of tensors may come from any thread in any order, each byte once. They go through
    ``memory``, and reach the disk when the file is closed, at the latest. Raises ExecutionError
    when the file cannot be created or written.
    """

    def __init__(
        self,
        path: Path,
        placements: Sequence[Placement],
        memory: BlockMemory,
        metadata: Mapping[str, str] = METADATA,
    ) -> None:
        header = encode_header(placements, metadata)
        self.path = path
        self.header_sha256 = digest.sha256(header)
        self.data_start = len(header)
        self.size_bytes = len(header) + max((tensor.end for tensor in placements), default=0)
        starts = range(0, self.size_bytes, memory.block_bytes)
        self._missing = [min(memory.block_bytes, self.size_bytes - start) for start in starts]
        self._blocks: dict[int, memoryview] = {}  # by number, those in memory
        # Those whose bytes go to the disk at once: the header's, and what came too early.
        self._on_disk = {start // memory.block_bytes for start in starts if start < len(header)}
        self._head: int | None = None  # where the digest is, when it is at work
        self._storing = 0
        self._ended = False
        self._failure: BaseException | None = None
        self._memory = memory
        self._changed = memory.changed
        with io_errors(path):
            self._disk = DiskFile(path, self.size_bytes)
            try:
                self._take(0, header)
            except BaseException:
                self._disk.close()
                raise
        self._sha256 = memory.digest(self)

    def write(self, begin: int, data: ReadBuffer) -> None:
        """Take ``data``, which begins at ``begin``, in bytes from the start of the file's data."""
        size = memoryview(data).nbytes
        begin += self.data_start
        if begin < self.data_start or begin + size > self.size_bytes:
            raise ValueError(f"bytes {begin} to {begin + size} lie outside of {self.path.name}")
        if size:
            self._take(begin, memoryview(data).cast("B"))

    def _take(self, position: int, data: ReadBuffer) -> None:
        rest = memoryview(data)
        while rest:
            number, start = divmod(position, self._memory.block_bytes)
            part = rest[: self._memory.block_bytes - start]
            self._add(number, start, part)
            position += len(part)
            rest = rest[len(part) :]

    def _add(self, number: int, start: int, data: memoryview) -> None:
        memory = self._memory_of(number)
        if memory is None:
            with io_errors(self.path):
                self._disk.write(self._begin(number) + start, data)
        else:
            memory[start : start + len(data)] = data
        with self._changed:
            self._missing[number] -= len(data)
            if number == self._head and not self._missing[number]:
                self._changed.notify_all()

    def _memory_of(self, number: int) -> memoryview | None:
        """Return a block's memory, once there is room for it; None when it goes to the disk."""

        def has_room() -> bool:
            near = self._head is not None and number < self._head + self._memory.window
            return near or self._is_known(number) or self._failure is not None

        with self._changed:
            there_is = self._is_known(number) or self._memory.await_room(has_room)
            if self._failure is not None:
                raise self._failure
            if not self._is_known(number):
                if there_is:
                    self._blocks[number] = self._memory.take()
                else:
                    self._on_disk.add(number)
                self._changed.notify_all()  # others may wait for room in the same block
            return self._blocks.get(number)

    def _is_known(self, number: int) -> bool:
        return number in self._blocks or number in self._on_disk

    def sha256(self) -> str:
        """Return the digest of the whole file.

        Raises RuntimeError if the bytes written are not as many as the tensors have.
        """
        if missing := sum(self._missing):
            raise RuntimeError(f"{self.path}: {missing} bytes were not written")
        return self._sha256.result()

    def digested(self) -> str:
        """Digest the file, each block when it is complete and in its turn, and store it then.

        Raises CancelledError when the file is closed before it is complete.
        """
        whole = hashlib.sha256()
        for number in range(len(self._missing)):
            memory = self._complete(number)
            begin, end = self._begin(number), self._begin(number + 1)
            if memory is None:
                with io_errors(self.path):
                    digest.update_from(whole, self._disk.fd, begin, end)
            else:
                data = memory[: end - begin]
                whole.update(data)
                self._memory.store(partial(self._store, begin, data), memory)
        with self._changed:
            self._changed.wait_for(lambda: not self._storing)
            if self._failure is not None:
                raise self._failure
        self._disk.end_whole()
        return whole.hexdigest()

    def _complete(self, number: int) -> memoryview | None:
        """Return a block's memory when it has all its bytes; None when they are on the disk."""
        with self._changed:
            self._head = number
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._ended or self._failure or not self._missing[number]
            )
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise CancelledError
            memory = self._blocks.pop(number, None)
            self._storing += memory is not None
            return memory

    def is_moving(self) -> bool:
        """Return whether the digest is at work, not waiting for bytes."""
        return self._head is not None and not self._missing[self._head]

    def _store(self, begin: int, data: memoryview) -> None:
        failure: BaseException | None = None
        try:
            with io_errors(self.path):
                self._disk.write_whole(begin, data)
        except BaseException as error:
            failure = error
        with self._changed:
            self._failure = self._failure or failure
            self._storing -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Bring the file to disk and close it; raises RuntimeError as ``sha256``."""
        try:
            self.sha256()
            with io_errors(self.path):
                self._disk.flush()
        finally:
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if not self._sha256.cancel():
            wait([self._sha256])
        with self._changed:
            self._changed.wait_for(lambda: not self._storing)
            for memory in self._blocks.values():
                self._memory.give_back(memory)
        self._disk.close()

    def _begin(self, number: int) -> int:
        return min(number * self._memory.block_bytes, self.size_bytes)

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
            self._end()


def write_file(path: Path, data: bytes) -> None:
    """Create a file that holds ``data``, on disk; raises ExecutionError."""
    with io_errors(path):
        fd = create(path)
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
