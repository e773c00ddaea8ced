"""Compare what a module holds with what a canonical directory stores, before any of it is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from converter.finding import Finding, closest
from converter.fold import fold_findings, skeleton
from converter.manifest import Manifest, TensorRecord
from converter.torch_dtypes import TORCH_DTYPES

Stored: TypeAlias = Mapping[str, TensorRecord]
Held: TypeAlias = Mapping[str, object]

_SAFETENSORS_DTYPES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def stored_names(manifest: Manifest) -> dict[str, TensorRecord]:
    """Return every name of the manifest, aliases included, with the tensor stored for it."""
    stored = {record.name: record for record in manifest.tensors}
    return stored | {alias: stored[name] for alias, name in manifest.aliases.items()}


def held_names(module: nn.Module) -> dict[str, object]:
    """Return every name of the module that has to be loaded, with what it holds now.

    These are its parameters and what its ``state_dict`` has beside them: persistent buffers, and
    extra state, which is no tensor. A tensor under several names is one object under each.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return parameters | module.state_dict(keep_vars=True)


def unsaved_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that the module's ``state_dict`` leaves out, by name."""
    held = held_names(module)
    buffers = module.named_buffers(remove_duplicate=False)
    return {name: buffer for name, buffer in buffers if name not in held}


def differences(module: nn.Module, manifest: Manifest, *, where: str) -> list[Finding]:
    """Return all that keeps ``module`` from being filled with the tensors of ``manifest``.

    Expected is what the files have, got is what the module has. Names whose findings are otherwise
    equal are folded into one; ``where`` names the directory.
    """
    stored, held = stored_names(manifest), held_names(module)
    findings = [
        *_missing(stored, held),
        *_unexpected(stored, held),
        *_unequal(stored, held),
        *_untied(stored, held),
        *_left_on_meta(module),
    ]
    return [replace(finding, where=where) for finding in fold_findings(findings)]


def _missing(stored: Stored, held: Held) -> Iterator[Finding]:
    unclaimed = {skeleton(name) for name in stored if name not in held}
    hints: dict[str, str | None] = {}
    for name, value in held.items():
        if name not in stored:
            pattern = skeleton(name)
            if pattern not in hints:
                hints[pattern] = _hint(pattern, unclaimed)
            yield Finding(
                code="missing",
                what="the module has it, the files do not",
                tensor=name,
                got=f"{_dtype(value)} {_shape(value)}",
                hint=hints[pattern],
            )


def _hint(pattern: str, unclaimed: Collection[str]) -> str | None:
    near = closest(pattern, unclaimed)
    return f"the files have {near!r}, which the module does not" if near else None


def _unexpected(stored: Stored, held: Held) -> Iterator[Finding]:
    for name, record in stored.items():
        if name not in held:
            yield Finding(
                code="unexpected",
                what="the files have it, the module does not",
                tensor=name,
                expected=str(record.spec),
            )


def _unequal(stored: Stored, held: Held) -> Iterator[Finding]:
    for name, value in held.items():
        if name in stored:
            record = stored[name]
            pairs = {
                "shape": (str(list(record.shape)), _shape(value)),
                "dtype": (record.dtype, _dtype(value)),
            }
            for field, (expected, got) in pairs.items():
                if expected != got:
                    what = f"the {field} of the module is not that of the files"
                    yield Finding(field, what, tensor=name, expected=expected, got=got)


def _untied(stored: Stored, held: Held) -> Iterator[Finding]:
    """Find the names that are one tensor in the module and several in the files."""
    groups: dict[int, list[str]] = {}
    for name, value in held.items():
        if name in stored and isinstance(value, Tensor):
            groups.setdefault(id(value), []).append(name)
    for names in groups.values():
        if len({stored[name].name for name in names}) > 1:
            yield Finding(
                code="tie",
                what="the module ties names that have values of their own in the files",
                tensor=" = ".join(names),
                hint="untie them in the module, or declare an alias in the rule file",
            )


def _left_on_meta(module: nn.Module) -> Iterator[Finding]:
    for name, buffer in unsaved_buffers(module).items():
        if buffer.is_meta:
            yield Finding(
                code="meta",
                what="a buffer on the meta device that neither state_dict nor the files hold",
                tensor=name,
                hint="compute it on a real device, or make it persistent and convert it",
            )


def _dtype(value: object) -> str:
    if isinstance(value, Tensor):
        return _SAFETENSORS_DTYPES.get(value.dtype, str(value.dtype))
    return type(value).__name__


def _shape(value: object) -> str:
    if isinstance(value, Tensor):
        return "not initialised" if is_lazy(value) else str(list(value.shape))
    return "not a tensor"
