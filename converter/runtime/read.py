"""Fill memory from files on several threads, and hash the very bytes that fill it.

The work is cut into units, each read from front to back by one thread. Where digests are asked
for, a unit is one stretch of bytes under one digest, or a row of small ones; else it is any
chunk. A unit takes its memory chunk by chunk through a *window*: for host memory that is the
memory itself, for a device it is a buffer that is sent there when the window closes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias

from torch import Tensor

from converter import canonical
from converter.cores import available_cores
from converter.errors import MismatchError
from converter.finding import Finding
from converter.layout import REWRITTEN
from converter.manifest import TensorRecord
from converter.positional import read_at
from converter.runtime.directory import OpenFile, reading
from converter.signals import checked

# Small enough to be hashed while still in cache, large enough for a read to be worth its call.
CHUNK_BYTES = 4 << 20
# Copying needs a few threads to fill the link to a device; hashing profits from every core.
_COPYING_READERS = 8
_HASHING_READERS = 16

Window: TypeAlias = Callable[[Tensor], AbstractContextManager[memoryview]]
Wait: TypeAlias = Callable[[], object]
Send: TypeAlias = Callable[[Tensor, Tensor], Wait]


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes ``[begin, end)`` of a file, all of a tensor or a piece of it, and their digest."""

    tensor: str
    begin: int
    end: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Unit:
    """Bytes of ``file`` from ``begin`` on, the uint8 ``memory`` to fill with them, and digests."""

    file: OpenFile
    begin: int
    memory: Tensor
    extents: tuple[Extent, ...]


def plan_units(file: OpenFile, memory: Tensor, *, hashed: bool) -> list[Unit]:
    """Cut the data of ``file``, to be read into ``memory``, into units of work."""
    if hashed:
        rows = list(_rows(extent for record in file.tensors for extent in extents(file, record)))
        bounds = [(row[0].begin, row[-1].end) for row in rows]
    else:
        starts = range(file.data_begin, file.size, CHUNK_BYTES)
        bounds = [(begin, min(begin + CHUNK_BYTES, file.size)) for begin in starts]
        rows = [() for _ in bounds]
    return [
        Unit(file, begin, memory[begin - file.data_begin : end - file.data_begin], row)
        for (begin, end), row in zip(bounds, rows, strict=True)
    ]


def extents(file: OpenFile, record: TensorRecord) -> Iterator[Extent]:
    """Yield what the digests of a tensor cover: its pieces where those are recorded.

    The digest of the whole would have to be computed by one thread; the pieces cover every byte,
    and the manifest's content digest covers the pieces.
    """
    end = record.offset + record.size
    digests = record.pieces or (record.sha256,)
    length = canonical.PIECE_BYTES if record.pieces else max(record.size, 1)
    count = max(-(-record.size // length), 1)
    if len(digests) != count:
        raise MismatchError(
            "pieces: not one digest for each piece of the tensor",
            code="layout",
            where=str(file.path),
            tensor=record.name,
            expected=str(count),
            got=str(len(digests)),
            hint=REWRITTEN,
        )
    for number, sha256 in enumerate(digests):
        begin = record.offset + number * length
        yield Extent(record.name, begin, min(begin + length, end), sha256)


def _rows(extents: Iterator[Extent]) -> Iterator[tuple[Extent, ...]]:
    """Join neighbours into rows of at most one chunk; a larger extent stands alone."""
    row: list[Extent] = []
    for extent in extents:
        if row and extent.end - row[0].begin > CHUNK_BYTES:
            yield tuple(row)
            row = []
        row.append(extent)
    if row:
        yield tuple(row)


def reader_count(*, hashed: bool) -> int:
    """Return how many threads read best."""
    return min(available_cores(), _HASHING_READERS if hashed else _COPYING_READERS)


def read_units(units: Sequence[Unit], window: Window, *, readers: int) -> list[Finding]:
    """Read all units on ``readers`` threads; return one finding for each tensor that differs.

    The first exception of a thread stops the others and is raised, once all have ended. So is a
    Ctrl-C, between two chunks.
    """
    with checked():
        pool = ThreadPoolExecutor(readers, thread_name_prefix="converter-reader")
        try:
            futures = [pool.submit(_read_unit, unit, window) for unit in units]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
    # Units start in order, so that one that failed comes before all that were cancelled.
    first: dict[str | None, Finding] = {}
    for future in futures:
        for finding in future.result():
            first.setdefault(finding.tensor, finding)
    return list(first.values())


def _read_unit(unit: Unit, window: Window) -> list[Finding]:
    digests = [hashlib.sha256() for _ in unit.extents]
    for start in range(0, unit.memory.numel(), CHUNK_BYTES):
        begin = unit.begin + start
        with window(unit.memory[start : start + CHUNK_BYTES]) as chunk:
            _fill(chunk, unit.file, begin)
            for extent, digest in zip(unit.extents, digests, strict=True):
                digest.update(chunk[max(extent.begin - begin, 0) : max(extent.end - begin, 0)])
    return [
        Finding(
            code="digest",
            what="the bytes are not those that were written",
            where=str(unit.file.path),
            tensor=extent.tensor,
            expected=f"sha256 {extent.sha256}",
            got=f"sha256 {digest.hexdigest()}",
            hint=REWRITTEN,
        )
        for extent, digest in zip(unit.extents, digests, strict=True)
        if digest.hexdigest() != extent.sha256
    ]


def _fill(chunk: memoryview, file: OpenFile, position: int) -> None:
    try:
        with reading(file.path):
            read_at(file.descriptor, chunk, position)
    except EOFError as error:
        raise MismatchError(
            "the file was cut short while it was read", code="changed", where=str(file.path)
        ) from error


@contextmanager
def in_place(memory: Tensor) -> Iterator[memoryview]:
    """Open a window straight on host memory."""
    yield memory.numpy().data


@contextmanager
def ring(buffers: Sequence[Tensor], send: Send) -> Iterator[Window]:
    """Yield windows that lend a buffer and send its bytes on when they close.

    ``send(memory, bytes)`` starts a copy and returns how to wait for it. A buffer is lent again
    only after its last copy is done; all copies are done when the ring ends, however it ends.
    Each of ``buffers`` is uint8 host memory of at least one chunk.
    """
    free: SimpleQueue[tuple[Tensor, Wait]] = SimpleQueue()
    for buffer in buffers:
        free.put((buffer, _done))

    @contextmanager
    def window(memory: Tensor) -> Iterator[memoryview]:
        buffer, sent = free.get()
        try:
            sent()
            filled = buffer[: memory.numel()]
            yield filled.numpy().data
            sent = send(memory, filled)
        finally:
            free.put((buffer, sent))

    try:
        yield window
    finally:
        for _ in buffers:
            _, sent = free.get()
            sent()


def _done() -> None:
    """Wait for nothing: the buffer was never sent."""
