"""``bundle.json``: which canonical directories belong together, and the facts they agree on.

Like the manifest, it depends on nothing but its sources, rules and version, and is read back
strictly. Its JSON Schema is ``schemas/bundle-record.schema.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypeAlias

from converter import strict_json
from converter.canonical import FORMAT_VERSION
from converter.errors import SourceError
from converter.manifest import Dim, FileRecord, RulesRecord, Scalar

Fact: TypeAlias = "Dim | Scalar | Mapping[str, Scalar]"

BUNDLE_NAME = "bundle.json"

_CHANGED = "the file was changed after it was written; convert the sources again"


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
    rules: RulesRecord
    sources: Mapping[str, tuple[FileRecord, ...]]
    members: Mapping[str, MemberRecord]
    agreed: tuple[AgreedRecord, ...]


def dump(record: BundleRecord) -> bytes:
    """Return the record as JSON in ASCII."""
    plain = asdict(record)
    for files in plain["sources"].values():
        for file in files:
            del file["header_sha256"]
    document = {"format": FORMAT_VERSION, **plain}
    return (json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def load(text: bytes, *, where: str = BUNDLE_NAME) -> BundleRecord:
    """Read a record back; ``where`` names it in errors.

    Raises SourceError when it is not strict JSON, of a format version that is not known, or not
    exactly what ``dump`` writes.
    """
    document = strict_json.parse(text, where=where)
    if not isinstance(document, dict) or document.get("format") != FORMAT_VERSION:
        raise SourceError(
            "not a bundle of a format version that this program knows",
            code="format",
            where=where,
            expected=f"an object with 'format': {FORMAT_VERSION}",
            hint="convert the sources again with this version",
        )
    try:
        record = BundleRecord(
            bundle=str(document["bundle"]),
            title=str(document["title"]),
            rules=RulesRecord(**document["rules"]),
            sources={
                name: tuple(FileRecord(**file) for file in files)
                for name, files in document["sources"].items()
            },
            members={name: MemberRecord(**item) for name, item in document["members"].items()},
            agreed=tuple(AgreedRecord(**item) for item in document["agreed"]),
        )
        same = dump(record) == text
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"not a bundle: {type(error).__name__}: {error}"
        raise SourceError(what, code="bundle", where=where, hint=_CHANGED) from error
    if not same:
        raise SourceError(
            "not the bytes that this bundle is written as", where=where, hint=_CHANGED
        )
    return record
