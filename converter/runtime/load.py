"""Load a canonical directory: as tensors, into a module, or as the network it was made for."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from converter.errors import MismatchError
from converter.manifest import Manifest
from converter.runtime.collector import paused
from converter.runtime.compare import Holdings, differences, stored_names
from converter.runtime.directory import OpenDirectory, opened
from converter.runtime.networks import build_network
from converter.runtime.tensors import Check, read_tensors, resolve_request
from converter.torch_dtypes import TORCH_DTYPES


def load_tensors(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    check: Check = "header",
    mapped: bool = False,
) -> dict[str, Tensor]:
    """Return name → tensor on ``device``, in manifest order, aliases last.

    ``check="header"`` proves names, dtypes, shapes and offsets; an edit of a file while it is read
    is an error as far as its size and times tell. ``check="full"`` proves the sha256 of every byte
    too, over the memory that is returned, and the manifest by ``SHA256SUMS``: whatever happens to
    the directory meanwhile, what is returned is all of one conversion.

    An alias is the same object as the tensor it stands for. All tensors of a file are views of one
    allocation: dropping one frees nothing, and ``torch.save`` of one saves them all; ``clone``
    those that are to live alone.

    ``mapped=True``, for the CPU and ``check="header"``, copies nothing: tensors are views of the
    mapped files, and a byte is read when it is first touched. They may be written to; the files
    stay as they are. Who writes to a file later may change them, and who cuts it short ends this
    process at a touch of what is gone: map what is only ever replaced, as ``convert`` does.

    Raises SourceError for what is not a canonical directory, MismatchError when its files are not
    what its manifest says or change while they are read, and ExecutionError when the device or
    its memory is not there, before anything is read.
    """
    target = resolve_request(device, check, mapped=mapped)
    with opened(path, full=check == "full") as canonical:
        return read_tensors(canonical, target, check, mapped=mapped)


def load_into(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    check: Check = "header",
    mapped: bool = False,
) -> None:
    """Give ``module``, built on any device or on meta, the tensors of a canonical directory.

    Names, shapes and dtypes must be equal: parameters and persistent buffers on one side, tensors
    and aliases on the other. Parameters are new objects afterwards, as views of one allocation
    per file, so build optimisers later; ``requires_grad`` is kept. Names that the module ties stay
    one parameter, and names that the manifest calls aliases become one. Buffers outside the
    ``state_dict`` are moved to ``device``. ``mapped`` is as for ``load_tensors``.

    Raises MismatchError with every difference at once, and the errors of ``load_tensors``; the
    module is then as it was.
    """
    target = resolve_request(device, check, mapped=mapped)
    with opened(path, full=check == "full") as canonical:
        _fill(module, Holdings.of(module), canonical, target, check, mapped=mapped)


def load_model(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    check: Check = "header",
    mapped: bool = False,
) -> nn.Module:
    """Return the network of a canonical directory on ``device``, in eval mode, without gradients.

    It is built from the dims of the manifest, and only if it implements all of its conventions;
    its floating dtypes are those of the files, tensor by tensor. ``mapped`` is as for
    ``load_tensors``.

    Raises UsageError when there is no network for the model, or none of these dims, MismatchError
    when conventions differ, and the errors of ``load_into``.
    """
    target = resolve_request(device, check, mapped=mapped)
    with opened(path, full=check == "full") as canonical:
        return load_network(canonical, target, check, mapped=mapped)


def load_network(
    canonical: OpenDirectory, device: torch.device, check: Check, *, mapped: bool
) -> nn.Module:
    """Do what ``load_model`` does with a directory that is open."""
    with paused():
        module = build_network(canonical.manifest.model).eval().requires_grad_(False)
        held = Holdings.of(module)
        _take_dtypes(held, canonical.manifest)
    _fill(module, held, canonical, device, check, mapped=mapped)
    return module


def _take_dtypes(held: Holdings, manifest: Manifest) -> None:
    """Give a network on meta the floating dtypes of the files, which its code leaves open."""
    stored = stored_names(manifest)
    for name, value in held.names.items():
        if name in stored and isinstance(value, Tensor):
            dtype = TORCH_DTYPES.get(stored[name].dtype)
            if dtype is None or dtype == value.dtype:
                continue
            if dtype.is_floating_point and value.is_floating_point():
                value.data = value.data.to(dtype)


def _fill(
    module: nn.Module,
    held: Holdings,
    canonical: OpenDirectory,
    device: torch.device,
    check: Check,
    *,
    mapped: bool,
) -> None:
    findings = differences(held, canonical.manifest, where=str(canonical.path))
    if findings:
        raise MismatchError.of(findings)
    tensors = read_tensors(canonical, device, check, mapped=mapped)
    with paused():
        _assign(module, held, _new_values(held, tensors, canonical.manifest), device)


def _assign(
    module: nn.Module, held: Holdings, values: Mapping[str, Tensor], device: torch.device
) -> None:
    unique = {id(buffer): buffer for buffer in held.unsaved.values()}
    moved = {key: buffer.to(device) for key, buffer in unique.items()}
    # Its metadata tells the hooks of the module's parts that the names are those of today.
    held.state.update(values)
    module.load_state_dict(held.state, strict=True, assign=True)
    for name, buffer in held.unsaved.items():
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, moved[id(buffer)])


def _new_values(
    held: Holdings, tensors: Mapping[str, Tensor], manifest: Manifest
) -> dict[str, Tensor]:
    """Return what each name of the module is to hold: a parameter, or a tensor for a buffer."""
    stored = stored_names(manifest)
    parameters: dict[str, nn.Parameter] = {}
    values: dict[str, Tensor] = {}
    for name, value in held.names.items():
        values[name] = tensors[name]
        if isinstance(value, nn.Parameter):
            # One object under all names of a tensor keeps a tie, or makes one.
            values[name] = parameters.setdefault(
                stored[name].name, nn.Parameter(tensors[name], requires_grad=value.requires_grad)
            )
    return values
