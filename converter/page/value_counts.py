"""How the values themselves lie, counted in one pass over the data, in constant memory.

Counts are whole numbers, so that the order in which blocks are counted does not matter.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from converter.canonical import PIECE_BYTES
from converter.digest import blocks
from converter.errors import SourceError
from converter.manifest import Manifest, TensorRecord
from converter.numpy_dtypes import NUMPY_DTYPES
from converter.positional import open_flags
from converter.progress import Progress
from converter.spec import DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts: TypeAlias = NDArray[np.int64]

# Values are counted by how many standard deviations they lie from the mean of their tensor.
Z_BINS, Z_END = 48, 6.0
# And by the exponent e of a magnitude in [2**(e-1), 2**e); what is beyond counts at the ends.
EXPONENTS = range(-48, 33)

_FLAGS = open_flags("O_RDONLY", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """Counts of the values of floating tensors.

    ``deviations`` are by group of tensors, in ``Z_BINS`` bins from -``Z_END`` to ``Z_END``, with
    those beyond before and behind; ``exponents`` are of all, for each of ``EXPONENTS``.
    """

    deviations: Mapping[str, tuple[int, ...]]
    exponents: tuple[int, ...]
    zeros: int
    nonfinite: int

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self.exponents) + self.zeros + self.nonfinite


@dataclass(frozen=True, slots=True)
class _Part:
    """Some consecutive values of a tensor, as bytes of its file."""

    tensor: TensorRecord
    begin: int
    end: int


def count_values(
    directory: Path, manifest: Manifest, groups: Mapping[str, str], *, jobs: int, progress: Progress
) -> ValueCounts:
    """Count the values of the floating tensors of a canonical directory that holds.

    ``groups`` says of each tensor's name in which group it counts; ``progress`` is told the bytes
    read. Raises SourceError when a file cannot be read.
    """
    parts = [part for tensor in manifest.tensors if _counts(tensor) for part in _parts(tensor)]
    total = sum(part.end - part.begin for part in parts)
    deviations: dict[str, Counts] = {}
    exponents = np.zeros(len(EXPONENTS) + 2, np.int64)
    with ExitStack() as stack:
        names = sorted({part.tensor.file for part in parts})
        files = {name: _open(directory / name, stack) for name in names}
        count = functools.partial(_count, directory, files)
        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        for part, (by_deviation, by_exponent) in zip(parts, pool.map(count, parts), strict=True):
            group = groups[part.tensor.name]
            deviations[group] = deviations.get(group, 0) + by_deviation
            exponents += by_exponent
            progress(part.end - part.begin, total)
    return ValueCounts(
        {group: tuple(counts.tolist()) for group, counts in deviations.items()},
        tuple(exponents[:-2].tolist()),
        zeros=int(exponents[-2]),
        nonfinite=int(exponents[-1]),
    )


def _counts(tensor: TensorRecord) -> bool:
    dtype = DTYPES[tensor.dtype]
    return dtype.kind == "float" and dtype.bits >= 8 and tensor.stats is not None


def _parts(tensor: TensorRecord) -> Iterator[_Part]:
    end = tensor.offset + tensor.size
    for begin in range(tensor.offset, end, PIECE_BYTES):
        yield _Part(tensor, begin, min(end, begin + PIECE_BYTES))


def _open(path: Path, stack: ExitStack) -> int:
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        raise _unreadable(path, error) from error
    stack.callback(os.close, descriptor)
    return descriptor


def _count(directory: Path, files: Mapping[str, int], part: _Part) -> tuple[Counts, Counts]:
    tensor = part.tensor
    deviations = np.zeros(Z_BINS + 2, np.int64)
    exponents = np.zeros(len(EXPONENTS) + 2, np.int64)
    try:
        for block in blocks(files[tensor.file], part.begin, part.end):
            values = np.frombuffer(block, NUMPY_DTYPES[tensor.dtype]).astype(np.float64)
            _add(values, tensor, deviations, exponents)
    except (OSError, EOFError) as error:
        raise _unreadable(directory / tensor.file, error) from error
    return deviations, exponents


def _add(
    values: NDArray[np.float64], tensor: TensorRecord, deviations: Counts, exponents: Counts
) -> None:
    is_finite = np.isfinite(values)
    finite = values if is_finite.all() else values[is_finite]
    zeros = len(finite) - int(np.count_nonzero(finite))
    # The exponent of a float64, as it is stored; that of zero is the lowest of all.
    places = (finite.view(np.int64) >> 52 & 0x7FF) - (1022 + EXPONENTS[0])
    np.clip(places, 0, len(EXPONENTS) - 1, out=places)
    exponents[:-2] += np.bincount(places, minlength=len(EXPONENTS))
    exponents[0] -= zeros
    exponents[-2] += zeros
    exponents[-1] += len(values) - len(finite)
    stats = tensor.stats
    per_std = Z_BINS / 2 / Z_END
    if stats is not None and stats.std > 0 and math.isfinite(per_std / stats.std):
        with np.errstate(over="ignore"):
            bins = (finite - stats.mean) * (per_std / stats.std)
        np.floor(bins, out=bins)
        np.clip(bins, -Z_BINS // 2 - 1, Z_BINS // 2, out=bins)
        deviations += np.bincount(bins.astype(np.int64) + Z_BINS // 2 + 1, minlength=Z_BINS + 2)


def _unreadable(path: Path, error: Exception) -> SourceError:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return SourceError(f"cannot be read: {why}", code="io", where=str(path))
