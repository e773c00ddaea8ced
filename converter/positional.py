"""Whole reads and writes at a position of an open file, from any thread, on any platform.

Each is a point where a process that was asked to end does so, if it is to end at such points.
"""

from __future__ import annotations

import operator
import os
import threading
from functools import reduce
from typing import TypeAlias

from converter.signals import check

ReadBuffer: TypeAlias = bytes | bytearray | memoryview
WriteBuffer: TypeAlias = bytearray | memoryview

# macOS refuses one call for 2 GiB or more, Linux cuts it short.
_CALL_BYTES = 1 << 30
_seeking = threading.Lock()


def open_flags(*names: str) -> int:
    """Combine those of the named flags of ``os.open`` that this platform has."""
    return reduce(operator.or_, (getattr(os, name, 0) for name in names))


def read_at(fd: int, buffer: WriteBuffer, position: int) -> None:
    """Fill ``buffer`` with the bytes of ``fd`` from ``position`` on.

    Raises EOFError when the file ends before the buffer is full, and OSError.
    """
    check()
    rest = _flat(buffer)
    while rest:
        count = _read_some(fd, rest[:_CALL_BYTES], position)
        if count == 0:
            raise EOFError(f"the file ends before byte {position + len(rest)}")
        rest = rest[count:]
        position += count


def write_at(fd: int, data: ReadBuffer, position: int) -> None:
    """Write all of ``data`` to ``fd`` from ``position`` on; raises OSError."""
    check()
    rest = _flat(data)
    while rest:
        count = _write_some(fd, rest[:_CALL_BYTES], position)
        rest = rest[count:]
        position += count


def _flat(buffer: ReadBuffer) -> memoryview:
    view = memoryview(buffer)
    return view.cast("B") if view.nbytes else memoryview(b"")


def _read_some(fd: int, view: memoryview, position: int) -> int:
    if hasattr(os, "preadv"):
        count: int = os.preadv(fd, [view], position)
        return count
    with _seeking:
        os.lseek(fd, position, os.SEEK_SET)
        data = os.read(fd, len(view))
    view[: len(data)] = data
    return len(data)


def _write_some(fd: int, view: memoryview, position: int) -> int:
    if hasattr(os, "pwrite"):
        count: int = os.pwrite(fd, view, position)
        return count
    with _seeking:
        os.lseek(fd, position, os.SEEK_SET)
        return os.write(fd, view)
