"""Memory in which files are put together, block by block, on their way to the disk.

A block is filled by whoever has bytes for it, digested when it is complete and its turn comes, and
stored. All files of a conversion share the memory, which grows with neither their number nor their
size: it holds what comes next in files that are digested. Who has bytes that come later waits.
When nobody would ever make what comes next, since all who could do so wait, they need not: such
bytes go to the disk, and are read back when their turn comes.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

_BLOCK_BYTES = 4 << 20
# Of one file; of each of several that are digested at a time, a share of it, but a few. Measured:
# with more, filling memory anew costs more than it saves.
_WINDOW_BLOCKS = 16
_LEAST_BLOCKS = 8
_WRITERS = 2
# Longer than it takes to begin a digest, or the next unit of work when one is done.
_PATIENCE_SECONDS = 0.01


class Digesting(Protocol):
    """A file that is put together here."""

    def digested(self) -> str:
        """Return the file's digest, once it has all its bytes."""

    def is_moving(self) -> bool:
        """Return whether its digest is at work, not waiting for bytes; called under the lock."""


class BlockMemory:
    """The memory of blocks, and the threads that digest and store them.

    ``files`` are digested at a time. Of each, ``window`` blocks of ``block_bytes`` are held from
    where its digest is. When nothing has moved for ``patience_seconds``, nothing will. ``changed``
    is the lock of it all.
    """

    def __init__(
        self,
        files: int = 1,
        *,
        window: int | None = None,
        block_bytes: int = _BLOCK_BYTES,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self.window = window or max(_LEAST_BLOCKS, _WINDOW_BLOCKS // files)
        self.block_bytes = block_bytes
        self._patience_seconds = patience_seconds
        self.changed = threading.Condition()
        self._free: list[memoryview] = []
        self._digesting: list[Digesting] = []
        self._storing = 0
        self._at_work = 0
        self._waiting: list[Callable[[], bool]] = []
        self._digesters = ThreadPoolExecutor(files)
        self._writers = ThreadPoolExecutor(_WRITERS)

    def digest(self, file: Digesting) -> Future[str]:
        """Begin to digest a file, after those that came before it."""

        def digested() -> str:
            with self.changed:
                self._digesting.append(file)
            try:
                return file.digested()
            finally:
                with self.changed:
                    self._digesting.remove(file)
                    self.changed.notify_all()

        return self._digesters.submit(digested)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Be one of those who make bytes, and wait for nothing but room for them, in the block."""
        with self.changed:
            self._at_work += 1
        try:
            yield
        finally:
            with self.changed:
                self._at_work -= 1
                self.changed.notify_all()

    def await_room(self, has_room: Callable[[], bool]) -> bool:
        """Wait for room; return False when there never would be any. Under the lock."""
        self._waiting.append(has_room)
        while not has_room() and has_room in self._waiting:
            if not self._is_stalled():
                self.changed.wait()
            elif not self.changed.wait(self._patience_seconds):
                self._waiting.clear()
                self.changed.notify_all()
        if has_room in self._waiting:
            self._waiting.remove(has_room)
        return has_room()

    def _is_stalled(self) -> bool:
        """Return whether all wait who could make what is waited for."""
        if len(self._waiting) < self._at_work or any(has_room() for has_room in self._waiting):
            return False
        return not any(file.is_moving() for file in self._digesting)

    def take(self) -> memoryview:
        """Return memory for a block, which starts at a page. Under the lock."""
        return self._free.pop() if self._free else _pages(self.block_bytes)

    def give_back(self, memory: memoryview) -> None:
        """Take back the memory of a block. Under the lock."""
        self._free.append(memory)

    def store(self, write: Callable[[], None], memory: memoryview) -> None:
        """Call ``write``, which raises nothing, on another thread; then take back the memory."""

        def stored() -> None:
            write()
            with self.changed:
                self._storing -= 1
                self.give_back(memory)
                self.changed.notify_all()

        with self.changed:
            # More that wait for the disk would be memory beside the window.
            self.changed.wait_for(lambda: self._storing < 2 * _WRITERS)
            self._storing += 1
        self._writers.submit(stored)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._digesters.shutdown()
        self._writers.shutdown()


def _pages(size: int) -> memoryview:
    """Return memory that starts at a page."""
    if hasattr(mmap, "MAP_PRIVATE"):  # what is shared, as by default, costs more to fill
        return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    return memoryview(mmap.mmap(-1, size))
