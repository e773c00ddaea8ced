"""What a trace says of itself: the calls of a network's modules, in the order in which they end.

A trace is an ordinary safetensors file of what modules were given and what they returned; this
record lies in its ``__metadata__``, as text. ``docs/trace.md`` describes it for other writers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from converter import strict_json
from converter.errors import SourceError
from converter.spec import Header
from converter.typed_json import WrongJsonError, mapping, record, sequence, sha256, text

TRACE_VERSION = 1
MOST_CALLS = 50_000  # with it, the header stays far below what any reader accepts

_KEY = "trace"
_HINT = "write the trace again, or take the metadata out to compare it by its names alone"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one module: the names of the tensors that it took and gave.

    ``name`` is the dotted path of the module, with ``#2`` from the second call on; the network
    itself is ''. ``caller`` is the call within which it happened, None for the outermost. ``whole``
    says that every module called within it has a record too.
    """

    name: str
    type: str
    caller: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    whole: bool

    @property
    def module(self) -> str:
        """The dotted path of the module."""
        return self.name.partition("#")[0]


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """All calls, each after those within it, and what else is known of the tensors.

    ``same`` gives for a name the first one with the same dtype, shape and bytes: what the file
    does not hold under a name, it holds under that one. ``left_out`` names what no safetensors
    file can hold. ``model`` and ``content_sha256`` are those of the canonical directory, where the
    network is from one.
    """

    calls: tuple[Call, ...]
    same: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    model: str | None = None
    content_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Traced:
    """A trace that was written: where, what it says of itself, what it holds, its size in bytes."""

    path: Path
    record: TraceRecord
    header: Header
    size_bytes: int


def to_metadata(trace: TraceRecord) -> dict[str, str]:
    """Return the ``__metadata__`` of a trace."""
    metadata = {"format": "pt", _KEY: str(TRACE_VERSION)}
    for key in ("model", "content_sha256"):
        if value := getattr(trace, key):
            metadata[key] = value
    metadata["calls"] = _encode([asdict(call) for call in trace.calls])
    metadata["same"] = _encode(dict(trace.same))
    metadata["left_out"] = _encode(trace.left_out)
    return metadata


def is_trace(metadata: Mapping[str, str]) -> bool:
    """Whether the metadata are those of a trace, of whatever version."""
    return _KEY in metadata


def from_metadata(
    metadata: Mapping[str, str], stored: Collection[str], *, where: str
) -> TraceRecord:
    """Read the record of a trace whose file holds the tensors ``stored``.

    Raises SourceError for another version, and for what is not to be believed: a name that the
    file does not hold, a call that ends after its caller, a name with two meanings.
    """
    if metadata.get(_KEY) != str(TRACE_VERSION):
        raise SourceError(
            "a version of traces that this program does not know",
            code="trace",
            where=where,
            expected=str(TRACE_VERSION),
            got=f"{metadata.get(_KEY, 'none'):.60}",
        )
    read: dict[str, Any] = {
        key: _read(metadata, key, reader, where) for key, reader in _READERS.items()
    }
    digest = metadata.get("content_sha256")
    if digest is not None:
        _typed(sha256, digest, "content_sha256", where)
    trace = TraceRecord(model=metadata.get("model"), content_sha256=digest, **read)
    _check_names(trace, stored, where)
    _check_callers(trace, where)
    return trace


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongJsonError("true or false", f"{value!r:.60}")
    return value


def _text_or_null(value: object) -> str | None:
    return None if value is None else text(value)


_READERS: Mapping[str, Callable[[object], Any]] = {
    "calls": sequence(
        record(
            Call,
            name=text,
            type=text,
            caller=_text_or_null,
            inputs=sequence(text),
            outputs=sequence(text),
            whole=_flag,
        )
    ),
    "same": mapping(text),
    "left_out": sequence(text),
}


def _read(
    metadata: Mapping[str, str], key: str, reader: Callable[[object], Any], where: str
) -> object:
    document = strict_json.parse(metadata.get(key, "null"), where=f"{where} ({key})")
    return _typed(reader, document, key, where)


def _typed(reader: Callable[[object], Any], document: object, key: str, where: str) -> object:
    try:
        return reader(document)
    except (WrongJsonError, RecursionError) as error:
        path = [key, *getattr(error, "path", [])]
        raise _wrong(
            f"metadata that are not those of a trace, at {' / '.join(path)}",
            where,
            getattr(error, "expected", "less depth"),
            getattr(error, "got", "more"),
        ) from error


def _check_names(trace: TraceRecord, stored: Collection[str], where: str) -> None:
    for name, other in trace.same.items():
        if other not in stored or other in trace.same:
            what = "a tensor is said to be the same as one that the file does not hold"
            raise _wrong(what, where, "the name of a tensor of the file", f"{name} = {other}")
    used: set[str] = set()
    for call in trace.calls:
        for name in (*call.inputs, *call.outputs):
            if name in used or (name not in stored and name not in trace.same):
                what = "a call names a tensor that it cannot have"
                raise _wrong(what, where, "each tensor of the file at most once", name)
            used.add(name)


def _check_callers(trace: TraceRecord, where: str) -> None:
    places = {call.name: place for place, call in enumerate(trace.calls)}
    if len(places) != len(trace.calls) or len(places) > MOST_CALLS:
        expected = f"at most {MOST_CALLS:,}, each with a name of its own"
        raise _wrong("not the calls of a trace", where, expected, f"{len(trace.calls):,} calls")
    for place, call in enumerate(trace.calls):
        if call.caller is not None and places.get(call.caller, -1) <= place:
            what = "a call does not end before its caller"
            raise _wrong(what, where, "a caller that ends later", f"{call.name} in {call.caller}")


def _wrong(what: str, where: str, expected: str, got: str) -> SourceError:
    return SourceError(what, code="trace", where=where, expected=expected, got=got, hint=_HINT)


_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
