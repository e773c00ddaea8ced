"""Fill memory from files on several threads, and hash the very bytes that fill it.

The work is cut into units, each read from front to back by one thread. Where digests are asked
for, a unit is one stretch of bytes under one digest, or a row of small ones; else it is any
chunk. A unit takes its memory chunk by chunk through a *window*: for host memory that is the
memory itself, for a device it is a buffer that is sent there when the window closes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias

import torch
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
    """Bytes ``[begin, end)`` of a file, all of a tensor or a piece of it, and their digest.

    Those of a ``boolean`` tensor are 0 or 1, whatever has another digest.
    """

    tensor: str
    begin: int
    end: int
    sha256: str
    boolean: bool


@dataclass(frozen=True, slots=True)
class Unit:
    """Bytes of ``file`` from ``begin`` on, the uint8 ``memory`` to fill with them, and digests."""

    file: OpenFile
    begin: int
    memory: Tensor
    extents: tuple[Extent, ...]


def plan_units(file: OpenFile, memory: Tensor, *, hashed: bool) -> list[Unit]:
    """Cut the data of ``file``, to be read into ``memory``, into units of work."""
    if not hashed:
        starts = range(file.data_begin, file.size, CHUNK_BYTES)
        chunks = torch.split(memory, CHUNK_BYTES) if file.data_bytes else ()
        return [Unit(file, begin, chunk, ()) for begin, chunk in zip(starts, chunks, strict=True)]
    rows = list(_rows(extent for record in file.tensors for extent in extents(file, record)))
    bounds = [(row[0].begin, row[-1].end) for row in rows]
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
        yield Extent(record.name, begin, min(begin + length, end), sha256, record.dtype == "BOOL")


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
    # The largest first, so that all threads end at about the same time.
    order = sorted(range(len(units)), key=lambda number: -units[number].memory.numel())
    pending = deque(order)
    with checked():
        pool = ThreadPoolExecutor(readers, thread_name_prefix="converter-reader")
        try:
            futures = [pool.submit(_read_pending, units, pending, window) for _ in range(readers)]
            wait(futures)
        finally:
            pending.clear()
            pool.shutdown()
    found = [one for future in futures for one in future.result()]
    first: dict[str | None, Finding] = {}
    for _, finding in sorted(found, key=lambda one: one[0]):
        first.setdefault(finding.tensor, finding)
    return list(first.values())


def _read_pending(
    units: Sequence[Unit], pending: deque[int], window: Window
) -> list[tuple[int, Finding]]:
    """Read units until none is pending; return what was found, each with its unit's number.

    While a chunk is copied to a device, all else has some 70 µs: so no task for each, no queue.
    """
    found: list[tuple[int, Finding]] = []
    try:
        while True:
            try:
                number = pending.popleft()
            except IndexError:
                return found
            found += [(number, finding) for finding in _read_unit(units[number], window)]
    except BaseException:
        pending.clear()
        raise


def _read_unit(unit: Unit, window: Window) -> Iterator[Finding]:
    proofs = [_Proof(unit.file, extent) for extent in unit.extents]
    begin = unit.begin
    for memory in torch.split(unit.memory, CHUNK_BYTES):
        with window(memory) as chunk:
            _fill(chunk, unit.file, begin)
            for proof in proofs:
                extent = proof.extent
                proof.add(chunk[max(extent.begin - begin, 0) : max(extent.end - begin, 0)])
            begin += len(chunk)
    for proof in proofs:
        yield from proof.findings()


class _Proof:
    """Takes the bytes of an extent in order, and says how they differ from those written."""

    def __init__(self, file: OpenFile, extent: Extent) -> None:
        self.extent = extent
        self._where = str(file.path)
        self._digest = hashlib.sha256()
        self._wrong = 0

    def add(self, data: memoryview) -> None:
        """Take the next bytes."""
        self._digest.update(data)
        if self.extent.boolean:
            self._wrong += len(bytes(data).translate(None, b"\0\1"))

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong with the bytes taken."""
        digest = self._digest.hexdigest()
        if digest != self.extent.sha256:
            yield Finding(
                code="digest",
                what="the bytes are not those that were written",
                where=self._where,
                tensor=self.extent.tensor,
                expected=f"sha256 {self.extent.sha256}",
                got=f"sha256 {digest}",
                hint=REWRITTEN,
            )
        elif self._wrong:  # no conversion writes them, and what they mean depends on who reads
            yield Finding(
                code="boolean",
                what="a boolean tensor holds bytes other than 0 and 1",
                where=self._where,
                tensor=self.extent.tensor,
                expected="0 or 1",
                got=f"{self._wrong} of {self.extent.end - self.extent.begin} bytes are not",
                hint=REWRITTEN,
            )


def _fill(chunk: memoryview, file: OpenFile, position: int) -> None:
    try:
        read_at(file.descriptor, chunk, position)
    except EOFError as error:
        raise MismatchError(
            "the file was cut short while it was read", code="changed", where=str(file.path)
        ) from error
    except OSError:
        with reading(file.path):
            raise


@contextmanager
def in_place(memory: Tensor) -> Iterator[memoryview]:
    """Open a window straight on host memory."""
    yield memory.numpy().data


@contextmanager
def ring(make: Callable[[], Tensor], count: int, send: Send) -> Iterator[Window]:
    """Yield windows that lend a buffer and send its bytes on when they close.

    ``make()`` returns one of at most ``count`` buffers, uint8 host memory of a chunk; they are
    made when first needed, by the threads that need them, since page-locking takes its time.
    ``send(memory, bytes)`` starts a copy and returns how to wait for it. A buffer is lent again
    only after its last copy is done; all copies are done when the ring ends, however it ends.
    """
    buffers = _Buffers(make, count)
    try:
        yield lambda memory: _Loan(buffers, memory, send)
    finally:
        buffers.wait()


@dataclass(slots=True)
class _Buffer:
    """A buffer, its memory, and how to wait for the last copy of it."""

    tensor: Tensor
    bytes: memoryview
    sent: Wait


class _Buffers:
    """Buffers to be lent, those that were made."""

    def __init__(self, make: Callable[[], Tensor], count: int) -> None:
        self._make = make
        self._unmade = deque(range(count))
        self._made: deque[_Buffer] = deque()
        self._free: SimpleQueue[_Buffer] = SimpleQueue()

    def take(self) -> _Buffer:
        """Return a buffer that nobody has; make it, or wait for it."""
        try:
            self._unmade.popleft()
        except IndexError:
            return self._free.get()
        tensor = self._make()
        buffer = _Buffer(tensor, tensor.numpy().data, _done)
        self._made.append(buffer)
        return buffer

    def give(self, buffer: _Buffer) -> None:
        """Take a buffer back."""
        self._free.put(buffer)

    def wait(self) -> None:
        """Wait for the copies of all buffers; nobody has one any more."""
        with ExitStack() as stack:
            for buffer in self._made:
                stack.callback(buffer.sent)


class _Loan:
    """The window of one chunk: a context whose value is host memory of the size of ``memory``."""

    __slots__ = ("_buffer", "_buffers", "_memory", "_send")

    def __init__(self, buffers: _Buffers, memory: Tensor, send: Send) -> None:
        self._buffers = buffers
        self._memory = memory
        self._send = send

    def __enter__(self) -> memoryview:
        self._buffer = buffer = self._buffers.take()
        try:
            buffer.sent()
        except BaseException:
            self._buffers.give(buffer)
            raise
        return buffer.bytes[: self._memory.numel()]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        buffer = self._buffer
        try:
            if kind is None:
                buffer.sent = self._send(self._memory, buffer.tensor[: self._memory.numel()])
        finally:
            self._buffers.give(buffer)


def _done() -> None:
    """Wait for nothing: the buffer was never sent."""
