"""What the files of a canonical directory must be, as its manifest has it.

The layout of a canonical file follows from its tensors alone. So no header is parsed: header,
offsets and size are derived again from names, dtypes and shapes, and compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.canonical import (
    MANIFEST_NAME,
    TENSOR_NAME,
    Placement,
    arrange,
    encode_header,
    shard_name,
)
from converter.errors import MismatchError, SourceError
from converter.finding import Finding
from converter.header import MAX_NAME_CHARS, parse_spec
from converter.manifest import FileRecord, Manifest, TensorRecord
from converter.spec import Shape, TensorSpec

REWRITTEN = "the directory was changed after it was written; convert the source again"


@dataclass(frozen=True, slots=True)
class Layout:
    """One weights file: its first bytes, its tensors in the order of their data, its size."""

    name: str
    header: bytes
    placements: tuple[Placement, ...]
    tensors: tuple[TensorRecord, ...]
    size: int


def layouts(manifest: Manifest, path: Path) -> tuple[Layout, ...]:
    """Return the layout of every weights file of the directory ``path``, in shard order.

    Raises SourceError when the manifest cannot be that of a canonical directory, and
    MismatchError when it contradicts the layout that follows from its tensors.
    """
    where = path / MANIFEST_NAME
    files = _weights_files(manifest, where)
    tensors: dict[str, list[TensorRecord]] = {name: [] for name in files}
    findings = [
        Finding("manifest", what, str(where), f"{name:.{MAX_NAME_CHARS}}")
        for name, what in _flaws(manifest)
    ]
    specs: dict[tuple[str, Shape], TensorSpec] = {}  # many tensors are alike
    for record in manifest.tensors:
        key = record.dtype, record.shape
        if key not in specs:
            shape = list(record.shape)
            specs[key] = parse_spec(record.name, record.dtype, shape, where=str(where))
        if record.file in tensors:
            tensors[record.file].append(record)
        else:
            what = f"it lies in {record.file!r:.{MAX_NAME_CHARS}}, which is not a weights file"
            findings.append(Finding("manifest", what, str(where), record.name))
    if findings:
        raise SourceError.of(findings)
    return tuple(_layout(files[name], tensors[name], specs, path / name) for name in files)


def _weights_files(manifest: Manifest, where: Path) -> Mapping[str, FileRecord]:
    files = {record.name: record for record in manifest.files if record.header_sha256 is not None}
    expected = [shard_name(number, len(files)) for number in range(1, len(files) + 1)]
    if not files or sorted(files) != expected:
        raise SourceError(
            "the manifest does not list the weights files of a canonical directory",
            code="manifest",
            where=str(where),
            expected=", ".join(expected) or shard_name(1, 1),
            got=", ".join(sorted(files)) or "no weights file",
        )
    return {name: files[name] for name in expected}


def _flaws(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield every name that no canonical file can have as it stands, and why."""
    stored = {record.name for record in manifest.tensors}
    for name in (*stored, *manifest.aliases):
        if not TENSOR_NAME.fullmatch(name):
            yield name, "not a name for a tensor"
    for name, target in manifest.aliases.items():
        if name in stored or target not in stored:
            shown = f"{target!r:.{MAX_NAME_CHARS}}"
            yield name, f"not an alias: {shown} must be stored, and the alias itself must not"


def _layout(
    file: FileRecord,
    tensors: Sequence[TensorRecord],
    specs: Mapping[tuple[str, Shape], TensorSpec],
    path: Path,
) -> Layout:
    by_name = {record.name: record for record in sorted(tensors, key=lambda item: item.offset)}
    placements = arrange(
        (name, specs[record.dtype, record.shape]) for name, record in by_name.items()
    )
    header = encode_header(placements)
    size = len(header) + (placements[-1].end if placements else 0)
    findings = []
    for placement in placements:
        record = by_name[placement.name]
        offset, length = len(header) + placement.begin, placement.end - placement.begin
        if (offset, length) != (record.offset, record.size):
            findings += _compare(path, "offset", offset, record.offset, record.name)
            findings += _compare(path, "size", length, record.size, record.name)
    findings += _compare(path, "size", size, file.size)
    digest = hashlib.sha256(header).hexdigest()
    findings += _compare(path, "header_sha256", digest, file.header_sha256)
    if findings:
        raise MismatchError.of(findings)
    records = tuple(by_name[item.name] for item in placements)
    return Layout(file.name, header, placements, records, size)


def _compare(
    path: Path, field: str, expected: object, got: object, tensor: str | None = None
) -> list[Finding]:
    if expected == got:
        return []
    return [
        Finding(
            code="layout",
            what=f"{field}: the manifest is not what follows from its tensors",
            where=str(path),
            tensor=tensor,
            expected=str(expected),
            got=str(got),
            hint=REWRITTEN,
        )
    ]
