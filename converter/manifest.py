"""The manifest: what a canonical directory holds, where it came from, and how it was made.

Nothing in it depends on the clock, the host or a path: the same source, rules and version give
the same bytes. Its JSON Schema is ``schemas/manifest.schema.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from converter import strict_json
from converter.canonical import FORMAT_VERSION, MANIFEST_NAME
from converter.errors import SourceError
from converter.spec import DTYPES, TensorSpec

Dim: TypeAlias = "int | list[Dim]"
_CHANGED = "the file was changed after it was written; convert the source again"
Scalar: TypeAlias = "str | int | float | bool | None"


@dataclass(frozen=True, slots=True)
class ToolRecord:
    """What made the files."""

    name: str
    version: str
    torch: str


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
    made from; ``stats`` is None for empty, boolean and complex tensors.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    sha256: str
    pieces: tuple[str, ...]
    sources: tuple[str, ...]
    steps: tuple[Mapping[str, object], ...]
    stats: Statistics | None

    @property
    def spec(self) -> TensorSpec:
        """Dtype and shape."""
        return TensorSpec(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class DropRecord:
    """A source tensor that was left out, and why; ``proven`` is what its value was shown to be."""

    name: str
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
    """Return the sha256 over (name, dtype, shape, sha256) of all tensors, whatever their layout."""
    digest = hashlib.sha256()
    for record in sorted(tensors, key=lambda record: record.name):
        shape = ",".join(map(str, record.shape))
        digest.update(f"{record.name}\t{record.dtype}\t{shape}\t{record.sha256}\n".encode())
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


def _spread(value: object) -> str:
    """Encode a container of records with one record per line, anything else on one line."""
    if isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
        rows = [f"  {_encode(key)}: {_encode(item)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + "\n }"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {_encode(item)}" for item in value) + "\n ]"
    return _encode(value)


_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode


def load(text: bytes, *, where: str = MANIFEST_NAME) -> Manifest:
    """Read a manifest back; ``where`` names it in errors.

    Raises SourceError when it is not strict JSON, of a format version that is not known, or not
    of the shape that ``dump`` gives.
    """
    document = strict_json.parse(text, where=where)
    if not isinstance(document, dict) or "format" not in document:
        raise SourceError("not a manifest", where=where, expected="an object with a 'format'")
    if document["format"] != FORMAT_VERSION or isinstance(document["format"], bool):
        raise SourceError(
            "a format version that this program does not know",
            code="format",
            where=where,
            expected=str(FORMAT_VERSION),
            got=repr(document["format"]),
            hint="convert the source again with this version, or install the version that wrote it",
        )
    try:
        manifest = _from_json(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(
            f"not a manifest: {type(error).__name__}: {error}",
            code="manifest",
            where=where,
            hint=_CHANGED,
        ) from error
    if dump(manifest) != text:
        raise SourceError(
            "not the bytes that this manifest is written as", where=where, hint=_CHANGED
        )
    return manifest


def _from_json(document: dict[str, object]) -> Manifest:
    fields = {key: value for key, value in document.items() if key != "format"}
    rules = _mapping(fields["rules"])
    built: dict[str, object] = {
        "tool": ToolRecord(**_strings(fields["tool"])),
        "model": _model(_mapping(fields["model"])),
        "rules": RulesRecord(**{**rules, "options": _strings(rules["options"])}),
        "sources": tuple(_file(item) for item in _sequence(fields["sources"])),
        "files": tuple(_file(item) for item in _sequence(fields["files"])),
        "tensors": tuple(
            _tensor(name, _mapping(item)) for name, item in _mapping(fields["tensors"]).items()
        ),
        "aliases": _strings(fields["aliases"]),
        "dropped": tuple(DropRecord(**_strings(item)) for item in _sequence(fields["dropped"])),
        "stand_ins": tuple(_stand_in(_mapping(item)) for item in _sequence(fields["stand_ins"])),
        "out_of_scope": _size(fields["out_of_scope"]),
        "totals": Totals(**{key: _size(n) for key, n in _mapping(fields["totals"]).items()}),
        "content_sha256": _text(fields["content_sha256"]),
    }
    return Manifest(**{**fields, **built})  # type: ignore[arg-type]


def _model(item: dict[str, Any]) -> ModelRecord:
    texts = {key: _text(item[key]) for key in ("name", "title", "origin")}
    mappings = {key: _mapping(item[key]) for key in ("dims", "conventions", "audio")}
    variant = tuple(_text(name) for name in _sequence(item["variant"]))
    return ModelRecord(**{**item, **texts, **mappings, "variant": variant})


def _tensor(name: str, item: dict[str, Any]) -> TensorRecord:
    if item["dtype"] not in DTYPES:
        raise ValueError(f"{name}: unknown dtype {item['dtype']!r}")
    stats = item.get("stats")
    return TensorRecord(
        **{
            **item,
            "name": name,
            "file": _text(item["file"]),
            "shape": tuple(_size(length) for length in _sequence(item["shape"])),
            "offset": _size(item["offset"]),
            "size": _size(item["size"]),
            "sha256": _text(item["sha256"]),
            "pieces": tuple(_text(digest) for digest in _sequence(item.get("pieces", []))),
            "sources": tuple(_text(source) for source in _sequence(item.get("sources", []))),
            "steps": tuple(_mapping(step) for step in _sequence(item.get("steps", []))),
            "stats": None if stats is None else Statistics(**_mapping(stats)),
        }
    )


def _file(item: object) -> FileRecord:
    record = FileRecord(**_mapping(item))
    _size(record.size)
    for text in (record.name, record.sha256):
        _text(text)
    return record


def _stand_in(item: dict[str, Any]) -> StandInRecord:
    return StandInRecord(**{**item, "sources": tuple(_sequence(item["sources"]))})


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {value!r:.60}")
    return value


def _sequence(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r:.60}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r:.60}")
    return value


def _strings(value: object) -> dict[str, str]:
    mapping = _mapping(value)
    if not all(isinstance(item, str) for item in mapping.values()):
        raise TypeError(f"expected strings, got {mapping!r:.60}")
    return mapping


def _size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"expected a size, got {value!r:.60}")
    return value
