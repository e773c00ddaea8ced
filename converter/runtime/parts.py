"""Read parts of stored tensors: boxes of their elements, each into a tensor of its own.

What lies in one stretch of the file is read straight into its tensor. Of a box that does not, the
stretch from its first to its last byte is read into host memory, and the box copied from there.
With digests, that stretch is every byte under a digest that covers some of the box: a whole
tensor, or whole pieces of a large one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from converter.canonical import TENSOR_ALIGNMENT_BYTES
from converter.errors import MismatchError
from converter.finding import Finding
from converter.manifest import TensorRecord
from converter.runtime.device import allocate, windows
from converter.runtime.directory import OpenDirectory, OpenFile, require_unchanged
from converter.runtime.read import CHUNK_BYTES, Unit, extents, read_units, reader_count
from converter.runtime.views import contiguous_strides
from converter.spec import Shape

# Host memory for the stretches that hold more than their box; a larger stretch takes what it needs.
STAGE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """The box of ``record`` that begins at ``offsets`` and has the shape of ``target``.

    ``target`` has the dtype of the record and is on any device.
    """

    record: TensorRecord
    offsets: Shape
    target: Tensor


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Bytes ``[begin, end)`` of ``file``, which hold a part; its own first byte is at ``first``."""

    part: Part
    file: OpenFile
    begin: int
    end: int
    first: int

    @property
    def size(self) -> int:
        return self.end - self.begin

    @property
    def is_whole(self) -> bool:
        """Whether it is the part, all of it and nothing else, as its target holds it."""
        return self.size == self.part.target.nbytes and self.part.target.is_contiguous()


# A tensor made in inference mode could not be filled by threads, which do not inherit the mode.
@torch.inference_mode(mode=False)
def read_parts(canonical: OpenDirectory, parts: Sequence[Part], *, hashed: bool) -> None:
    """Fill the targets of ``parts``; ``hashed`` proves every byte by its digest on the way.

    Raises MismatchError when bytes differ, or when a file changes while it is read without being
    hashed; targets may then hold anything.
    """
    files = {file.path.name: file for file in canonical.files}
    stretches = [
        _stretch(part, files[part.record.file], hashed=hashed)
        for part in parts
        if part.target.numel()
    ]
    findings: list[Finding] = []
    by_device: dict[torch.device, list[_Stretch]] = {}
    for stretch in stretches:
        if stretch.is_whole:
            by_device.setdefault(stretch.part.target.device, []).append(stretch)
    for device, whole in by_device.items():
        memories = [stretch.part.target.reshape(-1).view(torch.uint8) for stretch in whole]
        findings += _read(whole, memories, device, hashed=hashed)
    staged = [stretch for stretch in stretches if not stretch.is_whole]
    findings += _read_staged(staged, hashed=hashed)
    if findings or not hashed:  # proven bytes are right, whatever became of their file
        for file in canonical.files:
            require_unchanged(file)
    if findings:
        raise MismatchError.of(list({finding.tensor: finding for finding in findings}.values()))


def _stretch(part: Part, file: OpenFile, *, hashed: bool) -> _Stretch:
    record, target = part.record, part.target
    strides = contiguous_strides(record.shape)
    span = sum((n - 1) * stride for n, stride in zip(target.shape, strides, strict=True))
    skipped = sum(at * stride for at, stride in zip(part.offsets, strides, strict=True))
    begin = first = record.offset + skipped * target.itemsize
    end = begin + (span + 1) * target.itemsize
    if hashed:
        touched = [one for one in extents(file, record) if one.begin < end and one.end > begin]
        begin, end = touched[0].begin, touched[-1].end
    return _Stretch(part, file, begin, end, first)


def _read_staged(stretches: Sequence[_Stretch], *, hashed: bool) -> list[Finding]:
    """Read each stretch into host memory, some at a time, and copy its box to its target."""
    batches = list(_batches(stretches))
    stage_bytes = max((sum(map(_staged_bytes, batch)) for batch in batches), default=0)
    host = torch.device("cpu")
    (stage,) = allocate(host, [stage_bytes])
    findings: list[Finding] = []
    for batch in batches:
        ends = accumulate(map(_staged_bytes, batch), initial=0)
        memories = [stage[at : at + one.size] for at, one in zip(ends, batch, strict=False)]
        findings += _read(batch, memories, host, hashed=hashed)
        for stretch, memory in zip(batch, memories, strict=True):
            stretch.part.target.copy_(_box(stretch, memory))
    return findings


def _batches(stretches: Sequence[_Stretch]) -> Iterator[list[_Stretch]]:
    """Group stretches that fit into the stage together; a larger one is alone."""
    batch: list[_Stretch] = []
    filled = 0
    for stretch in stretches:
        size = _staged_bytes(stretch)
        if batch and filled + size > STAGE_BYTES:
            yield batch
            batch, filled = [], 0
        batch.append(stretch)
        filled += size
    if batch:
        yield batch


def _staged_bytes(stretch: _Stretch) -> int:
    """Return the room that a stretch takes, so that the next one begins aligned."""
    return stretch.size + -stretch.size % TENSOR_ALIGNMENT_BYTES


def _box(stretch: _Stretch, memory: Tensor) -> Tensor:
    """Return the box of a part as a view of the ``memory`` that holds its stretch."""
    target = stretch.part.target
    elements = memory.view(target.dtype)
    offset = elements.storage_offset() + (stretch.first - stretch.begin) // target.itemsize
    strides = contiguous_strides(stretch.part.record.shape)
    return elements.as_strided(target.shape, strides, offset)


def _read(
    stretches: Sequence[_Stretch], memories: Sequence[Tensor], device: torch.device, *, hashed: bool
) -> list[Finding]:
    """Fill each of ``memories``, uint8 on ``device``, with a stretch."""
    units = [
        unit
        for stretch, memory in zip(stretches, memories, strict=True)
        for unit in _units(stretch, memory, hashed=hashed)
    ]
    readers = reader_count(hashed=hashed)
    data_bytes = sum(stretch.size for stretch in stretches)
    with windows(device, readers=readers, data_bytes=data_bytes) as window:
        return read_units(units, window, readers=readers)


def _units(stretch: _Stretch, memory: Tensor, *, hashed: bool) -> Iterator[Unit]:
    file, begin = stretch.file, stretch.begin
    if not hashed:
        for start in range(0, stretch.size, CHUNK_BYTES):
            yield Unit(file, begin + start, memory[start : start + CHUNK_BYTES], ())
        return
    for extent in extents(file, stretch.part.record):
        if begin <= extent.begin and extent.end <= stretch.end:
            data = memory[extent.begin - begin : extent.end - begin]
            yield Unit(file, extent.begin, data, (extent,))
