"""The manifest: what a canonical directory holds, where it came from, and how it was made.

Nothing in it depends on the clock, the host or a path: the same source, rules and version give
the same bytes. Its JSON Schema is ``schemas/manifest.schema.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from converter import manifest_lines, strict_json
from converter.canonical import FILE_NAME, FORMAT_VERSION, MANIFEST_NAME
from converter.errors import SourceError
from converter.spec import DTYPES, TensorSpec
from converter.typed_json import (
    WrongJsonError,
    mapping,
    matching,
    one_of,
    read_back,
    real,
    record,
    scalar,
    sequence,
    sha256,
    size,
    text,
)

Dim: TypeAlias = "int | list[Dim]"
Scalar: TypeAlias = "str | int | float | bool | None"


@dataclass(frozen=True, slots=True)
class ToolRecord:
    """What made the files."""

    name: str
    version: str
    numpy: str


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What the tensors are: the model, the variants chosen, and the facts no shape can show."""

    name: str
    title: str
    origin: str
    variant: tuple[str, ...]
    dims: Mapping[str, Dim]
    conventions: Mapping[str, Scalar]
    audio: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class RulesRecord:
    """The rule file, and the options given beside it."""

    file: str
    sha256: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file by name, size in bytes and digest; ``header_sha256`` for canonical weights only."""

    name: str
    size: int
    sha256: str
    header_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of the finite values of a tensor, in float64; std is the population's."""

    mean: float
    std: float
    min: float
    max: float
    nonfinite: int = 0


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """One canonical tensor.

    ``offset`` and ``size`` are bytes in its file; ``pieces`` are the digests of its consecutive
    pieces of 64 MiB, for tensors larger than one piece; ``sources`` and ``steps`` say what it was
    made from, ``source_specs`` what each source was before the steps, if there are any; ``stats``
    is None for empty, boolean and complex tensors, and for dtypes of less than a byte.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    sha256: str
    pieces: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    source_specs: tuple[TensorSpec, ...] = ()
    steps: tuple[Mapping[str, object], ...] = ()
    stats: Statistics | None = None

    @property
    def spec(self) -> TensorSpec:
        """Dtype and shape."""
        return TensorSpec(self.dtype, self.shape)

    @property
    def given(self) -> tuple[TensorSpec, ...]:
        """Dtype and shape of each source."""
        return self.source_specs if self.steps else (self.spec,) * len(self.sources)


@dataclass(frozen=True, slots=True)
class DropRecord:
    """A source tensor that was left out, and why; ``proven`` is what its value was shown to be."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    because: str
    proven: str | None = None


@dataclass(frozen=True, slots=True)
class StandInRecord:
    """A canonical tensor whose source was absent, and what stands in."""

    name: str
    value: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the tensors stored."""

    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a canonical directory says of itself."""

    tool: ToolRecord
    model: ModelRecord
    rules: RulesRecord
    sources: tuple[FileRecord, ...]
    files: tuple[FileRecord, ...]
    tensors: tuple[TensorRecord, ...]
    aliases: Mapping[str, str]
    dropped: tuple[DropRecord, ...]
    stand_ins: tuple[StandInRecord, ...]
    out_of_scope: int
    totals: Totals
    content_sha256: str


def total(tensors: Iterable[TensorRecord]) -> Totals:
    """Return the sums over ``tensors``."""
    records = tuple(tensors)
    return Totals(
        tensors=len(records),
        parameters=sum(record.spec.numel for record in records),
        bytes=sum(record.size for record in records),
    )


def content_digest(tensors: Iterable[TensorRecord]) -> str:
    """Return the sha256 over name, dtype, shape and digests of all tensors, whatever their layout.

    The digests of pieces are among them, since it is those that a check holds data against.
    """
    digest = hashlib.sha256()
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        shape = ",".join(map(str, tensor.shape))
        fields = (tensor.name, tensor.dtype, shape, tensor.sha256, *tensor.pieces)
        digest.update(("\t".join(fields) + "\n").encode())
    return digest.hexdigest()


def dump(manifest: Manifest) -> bytes:
    """Return the manifest as JSON in ASCII, with one line per file, tensor and drop."""
    members: dict[str, object] = {
        "format": FORMAT_VERSION,
        "tool": asdict(manifest.tool),
        "model": asdict(manifest.model),
        "rules": asdict(manifest.rules),
        "sources": [_plain(record) for record in manifest.sources],
        "files": [_plain(record) for record in manifest.files],
        "tensors": {record.name: _plain_tensor(record) for record in manifest.tensors},
        "aliases": dict(manifest.aliases),
        "dropped": [_plain(record) for record in manifest.dropped],
        "stand_ins": [_plain(record) for record in manifest.stand_ins],
        "out_of_scope": manifest.out_of_scope,
        "totals": asdict(manifest.totals),
        "content_sha256": manifest.content_sha256,
    }
    lines = ",\n".join(f" {_encode(key)}: {_spread(value)}" for key, value in members.items())
    return f"{{\n{lines}\n}}\n".encode()


def _plain(record: FileRecord | DropRecord | StandInRecord) -> dict[str, object]:
    return {key: value for key, value in asdict(record).items() if value is not None}


def _plain_tensor(record: TensorRecord) -> dict[str, object]:
    """Return a tensor's members without its name; by hand, since a manifest has thousands."""
    plain: dict[str, object] = {
        "file": record.file,
        "dtype": record.dtype,
        "shape": record.shape,
        "offset": record.offset,
        "size": record.size,
        "sha256": record.sha256,
    }
    if record.pieces:
        plain["pieces"] = record.pieces
    if record.sources:
        plain["sources"] = record.sources
    if record.source_specs:
        plain["source_specs"] = _plain_specs(record.source_specs)
    if record.steps:
        plain["steps"] = record.steps
    if record.stats is not None:
        stats = record.stats
        plain["stats"] = {
            "mean": stats.mean,
            "std": stats.std,
            "min": stats.min,
            "max": stats.max,
            "nonfinite": stats.nonfinite,
        }
    return plain


def _plain_specs(specs: tuple[TensorSpec, ...]) -> list[dict[str, object]]:
    return [{"dtype": spec.dtype, "shape": spec.shape} for spec in specs]


def _spread(value: object) -> str:
    """Encode a container of records with one record per line, anything else on one line."""
    if isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
        rows = [f"  {_encode(key)}: {_encode(item)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + "\n }"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {_encode(item)}" for item in value) + "\n ]"
    return _encode(value)


_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode


def load(data: bytes, *, where: str = MANIFEST_NAME, statistics: bool = True) -> Manifest:
    """Read a manifest back; ``where`` names it in errors.

    Without ``statistics`` those may be left out, and the spelling of their numbers unproven; all
    else is the same. Raises SourceError when it is not strict JSON, of a format version that is
    not known, or not to the byte what ``dump`` writes.
    """
    quickly = _load_lines(data, statistics=statistics)
    return quickly or read_back(data, "manifest", _read_manifest, dump, where=where)


def _load_lines(data: bytes, *, statistics: bool) -> Manifest | None:
    """Return what ``load`` returns, unless something is wrong or not surely right."""
    parted = manifest_lines.part(data)
    too_long = len(data) > strict_json.MAX_BYTES
    if parted is None or too_long or strict_json.count_marks(data) > strict_json.MAX_MARKS:
        return None
    without, lines = parted
    try:
        manifest = read_back(without, "manifest", _read_manifest, dump, where=MANIFEST_NAME)
    except SourceError:
        return None
    tensors = manifest_lines.read(
        lines,
        TensorRecord,
        specs=_read_specs,
        steps=_read_steps,
        statistics=Statistics if statistics else None,
    )
    if tensors is None or len({record.name for record in tensors}) < len(tensors):
        return None
    return replace(manifest, tensors=tuple(tensors))


def read_dim(value: object) -> Dim:
    """Read a dim from parsed JSON."""
    return list(sequence(read_dim)(value)) if isinstance(value, list) else size(value)


def _read_steps(steps: str) -> tuple[Mapping[str, object], ...] | None:
    try:
        value = _steps(strict_json.parse(steps, where=MANIFEST_NAME))
    except (SourceError, WrongJsonError):
        return None
    return value if value and _encode(value) == steps else None


def _read_specs(specs: str) -> tuple[TensorSpec, ...] | None:
    try:
        value = _specs(strict_json.parse(specs, where=MANIFEST_NAME))
    except (SourceError, WrongJsonError):
        return None
    return value if value and _encode(_plain_specs(value)) == specs else None


def _parameter(value: object) -> object:
    if isinstance(value, dict):
        return mapping(size)(value)
    return list(sequence(scalar)(value)) if isinstance(value, list) else scalar(value)


def _tensors(value: object) -> tuple[TensorRecord, ...]:
    found = mapping(_tensor_fields)(value)
    return tuple(TensorRecord(name=name, **fields) for name, fields in found.items())


_steps = sequence(mapping(mapping(_parameter)))
_specs = sequence(record(TensorSpec, dtype=one_of(DTYPES), shape=sequence(size)))
_tensor_fields: Callable[[object], dict[str, Any]] = record(
    dict,
    optional=("pieces", "sources", "source_specs", "steps", "stats"),
    file=text,
    dtype=one_of(DTYPES),
    shape=sequence(size),
    offset=size,
    size=size,
    sha256=sha256,
    pieces=sequence(sha256),
    sources=sequence(text),
    source_specs=_specs,
    steps=_steps,
    stats=record(Statistics, mean=real, std=real, min=real, max=real, nonfinite=size),
)
_sources = sequence(record(FileRecord, name=text, size=size, sha256=sha256))
_files = sequence(
    record(
        FileRecord,
        optional=("header_sha256",),
        name=matching(FILE_NAME, "the name of a file of a canonical directory"),
        size=size,
        sha256=sha256,
        header_sha256=sha256,
    )
)
_read_manifest = record(
    Manifest,
    tool=record(ToolRecord, name=text, version=text, numpy=text),
    model=record(
        ModelRecord,
        name=text,
        title=text,
        origin=text,
        variant=sequence(text),
        dims=mapping(read_dim),
        conventions=mapping(scalar),
        audio=mapping(scalar),
    ),
    rules=record(RulesRecord, file=text, sha256=sha256, options=mapping(text)),
    sources=_sources,
    files=_files,
    tensors=_tensors,
    aliases=mapping(text),
    dropped=sequence(
        record(
            DropRecord,
            optional=("proven",),
            name=text,
            dtype=one_of(DTYPES),
            shape=sequence(size),
            because=text,
            proven=text,
        )
    ),
    stand_ins=sequence(record(StandInRecord, name=text, value=text, sources=sequence(text))),
    out_of_scope=size,
    totals=record(Totals, tensors=size, parameters=size, bytes=size),
    content_sha256=sha256,
)
