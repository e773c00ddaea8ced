"""The tensors of an open canonical directory: one block of memory per file, views carved last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from converter.errors import ExecutionError, MismatchError, UsageError
from converter.finding import Finding
from converter.runtime.device import allocate, resolve_device, windows
from converter.runtime.directory import OpenDirectory, OpenFile, require_unchanged
from converter.runtime.mapped import map_file, require_mappable
from converter.runtime.read import plan_units, read_units, reader_count
from converter.runtime.views import carve
from converter.torch_dtypes import TORCH_DTYPES

Check: TypeAlias = Literal["header", "full"]


# A tensor made in inference mode could not be filled by threads, which do not inherit the mode.
@torch.inference_mode(mode=False)
def read_tensors(
    canonical: OpenDirectory, device: torch.device, check: Check, *, mapped: bool
) -> dict[str, Tensor]:
    """Return name → tensor on ``device``: those stored, in manifest order, then the aliases.

    Unless they are ``mapped``, nothing is returned before all of it is read and, with
    ``check="full"``, proven: the bytes hashed are the bytes returned.
    """
    require_dtypes(canonical)
    files = canonical.files
    memories = [map_file(file) for file in files] if mapped else _read(files, device, check)
    if check == "header":  # proven bytes are right, whatever became of their file
        for file in files:
            require_unchanged(file)
    views: dict[str, Tensor] = {}
    for file, memory in zip(files, memories, strict=True):
        views |= carve(file, memory)
    tensors = {record.name: views[record.name] for record in canonical.manifest.tensors}
    aliases = canonical.manifest.aliases
    return tensors | {alias: tensors[name] for alias, name in aliases.items()}


def _read(files: Sequence[OpenFile], device: torch.device, check: Check) -> list[Tensor]:
    memories = allocate(device, [file.data_bytes for file in files])
    units = [
        unit
        for file, memory in zip(files, memories, strict=True)
        for unit in plan_units(file, memory, hashed=check == "full")
    ]
    readers = reader_count(hashed=check == "full")
    data_bytes = sum(file.data_bytes for file in files)
    with windows(device, readers=readers, data_bytes=data_bytes) as window:
        findings = read_units(units, window, readers=readers)
    if findings:
        for file in files:  # that it was written to meanwhile explains what differs
            require_unchanged(file)
        raise MismatchError.of(findings)
    return memories


def resolve_request(device: str | torch.device, check: str, *, mapped: bool) -> torch.device:
    """Return the device that is asked, as ``resolve_device`` does.

    Raises UsageError too for an unknown check, and for a mapping that cannot be had.
    """
    if check not in get_args(Check):
        raise UsageError(f"unknown check {check!r}", expected="'header' or 'full'")
    target = resolve_device(device)
    if mapped:
        require_mappable(target, check)
    return target


def require_dtypes(canonical: OpenDirectory) -> None:
    """Raise ExecutionError for tensors of which torch could make none."""
    findings = [
        Finding("dtype", "torch has no such dtype", tensor=record.name, got=record.dtype)
        for record in canonical.manifest.tensors
        if record.dtype not in TORCH_DTYPES
    ]
    if findings:
        raise ExecutionError.of(findings)
