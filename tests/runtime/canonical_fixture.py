"""Canonical directories for tests, written from the leaves alone, and ways to damage them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from converter import canonical, manifest
from converter.manifest import FileRecord, Manifest, ModelRecord, TensorRecord
from converter.spec import TensorSpec
from converter.torch_dtypes import SAFETENSORS_DTYPES, TORCH_DTYPES

TOY = ModelRecord("toy", "A toy", "nowhere", (), {"width": 4}, {"norm": "none", "scale": 2}, {})


def write_canonical(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    shards: Sequence[Sequence[str]] = (),
    aliases: Mapping[str, str] | None = None,
    model: ModelRecord = TOY,
) -> Path:
    """Write ``tensors``, into one file or into ``shards`` of names, and return ``path``."""
    path.mkdir()
    groups = shards or [list(tensors)]
    files: list[FileRecord] = []
    records: dict[str, TensorRecord] = {}
    for number, names in enumerate(groups, start=1):
        file = path / canonical.shard_name(number, len(groups))
        header, placed = _write_file(file, {name: tensors[name] for name in names})
        records |= {record.name: record for record in placed}
        files.append(FileRecord(file.name, file.stat().st_size, _sha256(file.read_bytes()), header))
    ordered = tuple(records[name] for name in tensors)
    _write_texts(path, _manifest(model, tuple(files), ordered, aliases or {}))
    return path


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of a directory."""
    return manifest.load((path / canonical.MANIFEST_NAME).read_bytes())


def edit_manifest(path: Path, change: Callable[[Manifest], Manifest]) -> None:
    """Rewrite the manifest of a directory, and what vouches for it."""
    _write_texts(path, change(read_manifest(path)))


def flip(file: Path, position: int) -> None:
    """Change one bit of the byte at ``position``."""
    with file.open("r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))


def random_tensor(dtype: str, shape: tuple[int, ...]) -> Tensor:
    """Return random bytes as a tensor."""
    data = torch.randint(0, 256, (TensorSpec(dtype, shape).nbytes,), dtype=torch.uint8)
    return (data % 2 if dtype == "BOOL" else data).view(TORCH_DTYPES[dtype]).view(shape)


def every_dtype() -> dict[str, Tensor]:
    """Return a matrix of every dtype that torch has, a scalar, a vector and empty tensors."""
    return {
        **{dtype.lower(): random_tensor(dtype, (3, 5)) for dtype in TORCH_DTYPES},
        "scalar": random_tensor("F32", ()),
        "vector": random_tensor("BF16", (128,)),
        "empty": random_tensor("F64", (0, 3)),
        "also_empty": random_tensor("I64", (0,)),
        "large": random_tensor("I16", (5000,)),
    }


def assert_same_bytes(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Assert equal names in equal order, dtypes, shapes and bytes."""
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape), name
        assert _bytes(got[name]) == _bytes(tensor), name


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()


def _write_texts(path: Path, described: Manifest) -> None:
    text = manifest.dump(described)
    (path / canonical.MANIFEST_NAME).write_bytes(text)
    sums = {record.name: record.sha256 for record in described.files}
    sums[canonical.MANIFEST_NAME] = _sha256(text)
    (path / canonical.SUMS_NAME).write_bytes(canonical.encode_sums(sums))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_file(file: Path, tensors: Mapping[str, Tensor]) -> tuple[str, list[TensorRecord]]:
    placements = canonical.arrange(
        (name, TensorSpec(SAFETENSORS_DTYPES[tensor.dtype], tuple(tensor.shape)))
        for name, tensor in tensors.items()
    )
    header = canonical.encode_header(placements)
    contents = [_bytes(tensors[placement.name]) for placement in placements]
    file.write_bytes(b"".join([header, *contents]))
    records = [
        _record(file.name, len(header), placement, data)
        for placement, data in zip(placements, contents, strict=True)
    ]
    return _sha256(header), records


def _record(file: str, begin: int, placement: canonical.Placement, data: bytes) -> TensorRecord:
    length = canonical.PIECE_BYTES
    starts = range(0, len(data), length) if len(data) > length else ()
    return TensorRecord(
        name=placement.name,
        file=file,
        dtype=placement.spec.dtype,
        shape=placement.spec.shape,
        offset=begin + placement.begin,
        size=len(data),
        sha256=_sha256(data),
        pieces=tuple(_sha256(data[start : start + length]) for start in starts),
        sources=(),
        steps=(),
        stats=None,
    )


def _manifest(
    model: ModelRecord,
    files: tuple[FileRecord, ...],
    tensors: tuple[TensorRecord, ...],
    aliases: Mapping[str, str],
) -> Manifest:
    return Manifest(
        tool=manifest.ToolRecord("checkpoint-converter", "0", "0"),
        model=model,
        rules=manifest.RulesRecord("toy.yaml", "0" * 64, {}),
        sources=(),
        files=files,
        tensors=tensors,
        aliases=aliases,
        dropped=(),
        stand_ins=(),
        out_of_scope=0,
        totals=manifest.total(tensors),
        content_sha256=manifest.content_digest(tensors),
    )
