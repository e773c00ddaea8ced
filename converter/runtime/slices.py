"""Load slices of tensors: what one of several ranks needs, and no more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor

from converter.canonical import TENSOR_ALIGNMENT_BYTES
from converter.errors import UsageError
from converter.finding import Finding
from converter.manifest import TensorRecord
from converter.runtime.device import allocate
from converter.runtime.directory import opened
from converter.runtime.parts import Part, read_parts
from converter.runtime.tensors import Check, require_dtypes, resolve_request
from converter.spec import Shape, TensorSpec
from converter.torch_dtypes import TORCH_DTYPES

Cut: TypeAlias = Callable[[str, Shape], Sequence[slice] | None]


@dataclass(frozen=True, slots=True)
class _Box:
    """The elements of a tensor from ``offsets`` on, as many as ``shape`` says."""

    record: TensorRecord
    offsets: Shape
    shape: Shape


def load_slices(
    path: str | os.PathLike[str],
    cut: Cut,
    *,
    device: str | torch.device = "cpu",
    check: Check = "header",
) -> dict[str, Tensor]:
    """Return name → slice of the tensor on ``device``, in manifest order, aliases last.

    ``cut(name, shape)`` returns slices for the leading dims of a tensor, as in ``tensor[0:4, 2:]``
    but without steps; ``[]`` for all of it, None to leave it out. An alias is what its tensor is.

    Of a slice along the first dim, nothing else is read; of any other, the stretch of the file
    from its first to its last byte. ``check="full"`` proves all that is returned, and so reads
    what the digests cover: the whole tensor, or the 64 MiB pieces of a large one that the slice
    touches.

    Raises UsageError for slices that no such tensor has, and the errors of ``load_tensors``.
    """
    target = resolve_request(device, check, mapped=False)
    with opened(path, full=check == "full") as canonical:
        require_dtypes(canonical)
        boxes = _boxes(canonical.manifest.tensors, cut)
        tensors = _allocate(boxes, target)
        parts = [
            Part(box.record, box.offsets, tensor)
            for box, tensor in zip(boxes, tensors, strict=True)
        ]
        read_parts(canonical, parts, hashed=check == "full")
    found = {part.record.name: part.target for part in parts}
    aliases = canonical.manifest.aliases
    return found | {alias: found[name] for alias, name in aliases.items() if name in found}


def share(size: int, rank: int, ranks: int) -> slice:
    """Return which of ``size`` rows the rank (from 0) gets of ``ranks``.

    As ``torch.chunk`` and a ``Shard`` of torch's DTensor have it: equal shares, rounded up, until
    nothing is left. Raises UsageError for a rank that is none.
    """
    if not 0 <= rank < ranks:
        raise UsageError("no such rank", expected=f"0 to {ranks - 1}", got=str(rank))
    each = -(-size // ranks)
    return slice(min(rank * each, size), min((rank + 1) * each, size))


def _boxes(records: Iterable[TensorRecord], cut: Cut) -> list[_Box]:
    boxes: list[_Box] = []
    findings: list[Finding] = []
    for record in records:
        slices = cut(record.name, record.shape)
        if slices is None:
            continue
        if len(slices) > len(record.shape) or any(one.step not in (None, 1) for one in slices):
            findings.append(
                Finding(
                    "slice",
                    "no slices of this tensor",
                    tensor=record.name,
                    expected=f"at most {len(record.shape)}, without steps, for {record.spec}",
                    got=f"[{', '.join(map(str, slices))}]",
                )
            )
            continue
        given = [*slices, *[slice(None)] * (len(record.shape) - len(slices))]
        bounds = [one.indices(size) for one, size in zip(given, record.shape, strict=True)]
        shape = tuple(max(end - begin, 0) for begin, end, _ in bounds)
        boxes.append(_Box(record, tuple(begin for begin, _, _ in bounds), shape))
    if findings:
        raise UsageError.of(findings)
    return boxes


# What is made in inference mode could not be filled by threads, which do not inherit the mode.
@torch.inference_mode(mode=False)
def _allocate(boxes: Sequence[_Box], device: torch.device) -> list[Tensor]:
    """Return a tensor for each box, all of them views of one allocation."""
    specs = [TensorSpec(box.record.dtype, box.shape) for box in boxes]
    rooms = [spec.nbytes + -spec.nbytes % TENSOR_ALIGNMENT_BYTES for spec in specs]
    (memory,) = allocate(device, [sum(rooms)])
    starts = accumulate(rooms, initial=0)
    return [
        memory[start : start + spec.nbytes].view(TORCH_DTYPES[spec.dtype]).view(spec.shape).data
        for start, spec in zip(starts, specs, strict=False)
    ]
