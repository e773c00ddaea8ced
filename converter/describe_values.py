"""What the values of a checkpoint come to: read once, on all workers, in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converter.describe import Description
from converter.manifest import Statistics
from converter.progress import Progress
from converter.signals import checked
from converter.source import Source
from converter.source.stored import Sameness, Stored, blocks

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
        tensor = Stored(source, name, header[name])
        return _read(tensor, statistics, lambda done: progress(done, total))

    # The largest first, so that no worker is left with one at the end.
    names = sorted(header, key=lambda name: -header[name].nbytes)
    with checked(), ThreadPoolExecutor(jobs) as pool:
        read_values = dict(zip(names, pool.map(read, names), strict=True))
    source.check_unchanged()
    return {name: read_values[name] for name in header}


def _read(tensor: Stored, statistics: bool, advance: Callable[[int], None]) -> TensorValues:
    digest = hashlib.sha256()
    sameness = Sameness(tensor.spec.dtype)
    counts = _counts(tensor.spec.dtype) if statistics else None
    for chunk in blocks(tensor, CHUNK_BYTES):
        digest.update(chunk)
        sameness.add(chunk)
        if counts is not None:
            counts.add(chunk)
        advance(len(chunk))
    constant = tensor.spec.numel > 0 and sameness.holds
    if counts is None:
        return TensorValues(digest.hexdigest(), constant)
    return TensorValues(
        digest.hexdigest(), constant, counts.stats(), counts.zeros, counts.nan, counts.nonfinite
    )


def _counts(dtype: str) -> Counts:
    from converter.describe_counts import Counts

    return Counts(dtype)
