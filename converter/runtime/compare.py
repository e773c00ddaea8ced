"""Compare what a module holds with what a canonical directory stores, before any of it is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from converter.finding import Finding, closest
from converter.fold import fold_findings, skeleton
from converter.manifest import Manifest, TensorRecord
from converter.torch_dtypes import SAFETENSORS_DTYPES

Stored: TypeAlias = Mapping[str, TensorRecord]
Held: TypeAlias = Mapping[str, object]


def stored_names(manifest: Manifest) -> dict[str, TensorRecord]:
    """Return every name of the manifest, aliases included, with the tensor stored for it."""
    stored = {record.name: record for record in manifest.tensors}
    return stored | {alias: stored[name] for alias, name in manifest.aliases.items()}


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a module holds, by name; a tensor under several names is one object under each.

    ``names`` has all that is to be loaded: parameters, and what the ``state_dict`` has beside
    them, which are persistent buffers, and extra state, which is no tensor. ``unsaved`` has the
    buffers that it leaves out. ``state`` is the ``state_dict`` itself.
    """

    names: Held
    unsaved: Mapping[str, Tensor]
    state: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """Return what ``module`` holds now; to find it takes as long as the module is deep."""
        state = module.state_dict(keep_vars=True)
        names = dict(module.named_parameters(remove_duplicate=False)) | state
        buffers = module.named_buffers(remove_duplicate=False)
        return cls(names, {key: held for key, held in buffers if key not in names}, state)


def differences(held: Holdings, manifest: Manifest, *, where: str) -> list[Finding]:
    """Return all that keeps a module from being filled with the tensors of ``manifest``.

    Expected is what the files have, got is what the module has. Names whose findings are otherwise
    equal are folded into one; ``where`` names the directory.
    """
    stored = stored_names(manifest)
    findings = [
        *_missing(stored, held.names),
        *_unexpected(stored, held.names),
        *_unequal(stored, held.names),
        *_untied(stored, held.names),
        *_left_on_meta(held.unsaved),
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
            pairs = (
                ("shape", list(record.shape), _shape(value)),
                ("dtype", record.dtype, _dtype(value)),
            )
            for field, expected, got in pairs:
                if expected != got:
                    what = f"the {field} of the module is not that of the files"
                    yield Finding(field, what, tensor=name, expected=str(expected), got=str(got))


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


def _left_on_meta(unsaved: Mapping[str, Tensor]) -> Iterator[Finding]:
    for name, buffer in unsaved.items():
        if buffer.is_meta:
            yield Finding(
                code="meta",
                what="a buffer on the meta device that neither state_dict nor the files hold",
                tensor=name,
                hint="compute it on a real device, or make it persistent and convert it",
            )


def _dtype(value: object) -> str:
    if isinstance(value, Tensor):
        return SAFETENSORS_DTYPES.get(value.dtype, str(value.dtype))
    return type(value).__name__


def _shape(value: object) -> list[int] | str:
    if isinstance(value, Tensor):
        return "not initialised" if is_lazy(value) else list(value.shape)
    return "not a tensor"
