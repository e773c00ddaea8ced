"""Read the tensors of an open canonical directory: one allocation per file, views carved last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from converter.cores import available_cores
from converter.errors import ExecutionError, MismatchError, UsageError
from converter.finding import Finding
from converter.runtime.device import allocate, windows
from converter.runtime.directory import OpenDirectory, OpenFile, require_unchanged
from converter.runtime.read import plan_units, read_units
from converter.torch_dtypes import TORCH_DTYPES

Check: TypeAlias = Literal["header", "full"]

# Copying needs a few threads to fill the link to a device; hashing profits from every core.
_COPYING_READERS = 8
_HASHING_READERS = 16


# A tensor made in inference mode could not be filled by threads, which do not inherit the mode.
@torch.inference_mode(mode=False)
def read_tensors(canonical: OpenDirectory, device: torch.device, check: Check) -> dict[str, Tensor]:
    """Return name → tensor on ``device``: those stored, in manifest order, then the aliases.

    Nothing is returned before all of it is read and, with ``check="full"``, proven: the bytes
    hashed are the bytes returned.
    """
    _require_dtypes(canonical)
    files = canonical.files
    memories = allocate(device, [file.data_bytes for file in files])
    units = [
        unit
        for file, memory in zip(files, memories, strict=True)
        for unit in plan_units(file, memory, hashed=check == "full")
    ]
    readers = min(available_cores(), _HASHING_READERS if check == "full" else _COPYING_READERS)
    data_bytes = sum(file.data_bytes for file in files)
    with windows(device, readers=readers, data_bytes=data_bytes) as window:
        findings = read_units(units, window, readers=readers)
    for file in files:
        require_unchanged(file)
    if findings:
        raise MismatchError.of(findings)
    views = {
        name: view
        for file, memory in zip(files, memories, strict=True)
        for name, view in _carve(file, memory)
    }
    tensors = {record.name: views[record.name] for record in canonical.manifest.tensors}
    aliases = canonical.manifest.aliases
    return tensors | {alias: tensors[name] for alias, name in aliases.items()}


def require_check(check: str) -> None:
    """Raise UsageError for a word that is no check."""
    if check not in get_args(Check):
        raise UsageError(f"unknown check {check!r}", expected="'header' or 'full'")


def _require_dtypes(canonical: OpenDirectory) -> None:
    findings = [
        Finding("dtype", "torch has no such dtype", tensor=record.name, got=record.dtype)
        for record in canonical.manifest.tensors
        if record.dtype not in TORCH_DTYPES
    ]
    if findings:
        raise ExecutionError.of(findings)


def _carve(file: OpenFile, memory: Tensor) -> Iterator[tuple[str, Tensor]]:
    for record in file.tensors:
        # An empty tensor lies after the odd ones, where no view of a wider dtype may begin.
        begin = record.offset - file.data_begin if record.size else 0
        data = memory[begin : begin + record.size]
        yield record.name, data.view(TORCH_DTYPES[record.dtype]).view(record.shape)
