"""``bundle.json``: which canonical directories belong together, and the facts they agree on.

Like the manifest, it depends on nothing but its sources, rules and version, and is read back
strictly. Its JSON Schema is ``schemas/bundle-record.schema.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypeAlias

from converter.canonical import FORMAT_VERSION
from converter.finding import Finding
from converter.manifest import Dim, FileRecord, Scalar, read_dim
from converter.typed_json import (
    WrongJsonError,
    mapping,
    members,
    read_back,
    record,
    scalar,
    sequence,
    sha256,
    size,
    text,
)

Fact: TypeAlias = "Dim | Scalar | Mapping[str, Scalar]"

BUNDLE_NAME = "bundle.json"

_WORD = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class BundleFileRecord:
    """The bundle file."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """One canonical directory of a bundle: its model, and the digests of what it holds."""

    model: str
    source: str
    manifest_sha256: str
    content_sha256: str


@dataclass(frozen=True, slots=True)
class AgreedRecord:
    """A condition between members that was shown to hold, its reason, and the values it had."""

    that: str
    because: str
    values: Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """Everything that a bundle says of itself; each member lies in a directory of its name."""

    bundle: str
    title: str
    rules: BundleFileRecord
    sources: Mapping[str, tuple[FileRecord, ...]]
    members: Mapping[str, MemberRecord]
    agreed: tuple[AgreedRecord, ...]


def facts_of(
    member: str,
    *,
    dims: Mapping[str, Dim],
    conventions: Mapping[str, Scalar],
    audio: Mapping[str, Scalar],
) -> dict[str, Fact]:
    """Return what conditions may mention of a member, as ``member.fact``; audio is one table."""
    facts: dict[str, Fact] = {**conventions, **dims, "audio": dict(audio)}
    return {f"{member}.{name}": value for name, value in facts.items()}


def not_the_member(name: str, *, where: str, expected: str, got: str) -> Finding:
    """Return the finding that a member is another than the one that was published."""
    return Finding(
        "bundle",
        f"{name} is not the member that the bundle was published with",
        where,
        expected=f"sha256 {expected}",
        got=f"sha256 {got}",
        hint="members of different bundles do not fit together; convert the bundle again",
    )


def dump(record: BundleRecord) -> bytes:
    """Return the record as JSON in ASCII."""
    plain = asdict(record)
    for files in plain["sources"].values():
        for file in files:
            del file["header_sha256"]
    document = {"format": FORMAT_VERSION, **plain}
    return (json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def load(data: bytes, *, where: str = BUNDLE_NAME) -> BundleRecord:
    """Read a record back; ``where`` names it in errors.

    Raises SourceError when it is not strict JSON, of a format version that is not known, or not
    to the byte what ``dump`` writes.
    """
    return read_back(data, "bundle", _read_record, dump, where=where)


def _read_fact(value: object) -> Fact:
    if isinstance(value, dict):
        return mapping(scalar)(value)
    return read_dim(value) if isinstance(value, list) else scalar(value)


def _read_members(value: object) -> dict[str, MemberRecord]:
    """Read the members, whose names become paths."""
    for name in members(value):
        if not _WORD.fullmatch(name):
            raise WrongJsonError("names of letters, digits and _", f"{name!r:.60}")
    return mapping(_read_member)(value)


_read_member = record(
    MemberRecord, model=text, source=text, manifest_sha256=sha256, content_sha256=sha256
)
_read_record = record(
    BundleRecord,
    bundle=text,
    title=text,
    rules=record(BundleFileRecord, file=text, sha256=sha256),
    sources=mapping(sequence(record(FileRecord, name=text, size=size, sha256=sha256))),
    members=_read_members,
    agreed=sequence(record(AgreedRecord, that=text, because=text, values=mapping(_read_fact))),
)
