"""What the values of a checkpoint come to: read once, on all workers, in constant memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converter.describe import Description
from converter.manifest import Statistics
from converter.progress import Progress
from converter.signals import checked
from converter.source import Source
from converter.spec import DTYPES, TensorSpec

if TYPE_CHECKING:
    from converter.describe_counts import Counts

# Whole blocks of statistics whatever the dtype, and little enough to stay in the cache.
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class TensorValues:
    """What was read of one tensor; ``constant`` says that all of its elements are the same.

    The rest is there when statistics were asked for: ``stats`` as in a manifest, ``zeros`` (False
    of booleans) and ``nan`` as numbers of elements, ``nonfinite`` those that are NaN or infinite.
    They are None for dtypes narrower than a byte.
    """

    sha256: str
    constant: bool
    stats: Statistics | None = None
    zeros: int | None = None
    nan: int | None = None
    nonfinite: int | None = None


def values_of(
    source: Source, description: Description, *, statistics: bool, jobs: int, progress: Progress
) -> dict[str, TensorValues]:
    """Read every tensor of a description: its digest, and its statistics when asked for.

    Each worker holds one chunk. Raises SourceError when a value cannot be read.
    """
    header = description.header
    total = description.nbytes

    def read(name: str) -> TensorValues:
        return _read(source, name, header[name], statistics, lambda done: progress(done, total))

    # The largest first, so that no worker is left with one at the end.
    names = sorted(header, key=lambda name: -header[name].nbytes)
    with checked(), ThreadPoolExecutor(jobs) as pool, _cancelling(pool):
        read_values = dict(zip(names, pool.map(read, names), strict=True))
    source.check_unchanged()
    return {name: read_values[name] for name in header}


@contextmanager
def _cancelling(pool: ThreadPoolExecutor) -> Iterator[None]:
    """After an error, begin nothing more."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


class _Buffer(threading.local):
    """What a thread reads into."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(CHUNK_BYTES))


_buffer = _Buffer()


def _read(
    source: Source,
    name: str,
    spec: TensorSpec,
    statistics: bool,
    advance: Callable[[int], None],
) -> TensorValues:
    digest = hashlib.sha256()
    sameness = _Sameness(DTYPES[spec.dtype].bits // 8 or 1)
    counts = _counts(spec.dtype) if statistics else None
    for begin in range(0, spec.nbytes, CHUNK_BYTES):
        chunk = _buffer.view[: min(CHUNK_BYTES, spec.nbytes - begin)]
        source.read_into(name, chunk, begin)
        digest.update(chunk)
        sameness.add(chunk)
        if counts is not None:
            counts.add(chunk)
        advance(len(chunk))
    constant = spec.numel > 0 and sameness.holds
    if counts is None:
        return TensorValues(digest.hexdigest(), constant)
    return TensorValues(
        digest.hexdigest(), constant, counts.stats(), counts.zeros, counts.nan, counts.nonfinite
    )


def _counts(dtype: str) -> Counts:
    from converter.describe_counts import Counts

    return Counts(dtype)


class _Sameness:
    """Whether all elements have the same bytes."""

    def __init__(self, width: int) -> None:
        self.holds = True
        self._width = width
        self._first = b""

    def add(self, chunk: memoryview) -> None:
        if not self.holds:
            return
        self._first = self._first or bytes(chunk[: self._width])
        few = chunk[: self._width << 8]  # mostly, they tell already
        self.holds = all(
            bytes(part) == self._first * (len(part) // self._width) for part in (few, chunk)
        )
