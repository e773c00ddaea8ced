"""Check a bundle: its record, its members one by one, and that they are the ones it names."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from converter import bundle_record
from converter.bundle_record import BUNDLE_NAME, BundleRecord, Fact, facts_of, not_the_member
from converter.canonical import MANIFEST_NAME, SIGNATURE_NAME, SUMS_NAME, encode_sums
from converter.digest import sha256
from converter.errors import SourceError
from converter.finding import Finding
from converter.layout import REWRITTEN
from converter.manifest import Manifest
from converter.progress import Progress
from converter.typed_json import first_difference
from converter.verify import Depth, Verification, read_text, verify

_SHOWN_BYTES = 200
_WEIGHTS_SUFFIX = ".safetensors"


def verify_bundle(directory: Path, *, depth: Depth, jobs: int, progress: Progress) -> Verification:
    """Check every file of a bundle; differences are findings, never exceptions.

    Raises SourceError when a file or directory cannot be read.
    """
    digest: str | None = None
    try:
        kinds = {name: os.lstat(directory / name).st_mode for name in os.listdir(directory)}
        texts = {
            name: read_text(directory / name)
            for name in (BUNDLE_NAME, SUMS_NAME)
            if stat.S_ISREG(kinds.get(name, 0))
        }
        if BUNDLE_NAME not in texts:
            what = "not a bundle: its record is no regular file"
            finding = Finding("kind", what, str(directory / BUNDLE_NAME), hint=REWRITTEN)
            return Verification(directory, None, (finding,), 0)
        digest = sha256(texts[BUNDLE_NAME])
        record = bundle_record.load(texts[BUNDLE_NAME], where=str(directory / BUNDLE_NAME))
    except OSError as error:
        where = str(error.filename or directory)
        raise SourceError(f"cannot be read: {error.strerror}", code="io", where=where) from error
    except SourceError as error:
        return Verification(directory, None, error.findings, 0, manifest_sha256=digest)
    present = [name for name in record.members if stat.S_ISDIR(kinds.get(name, 0))]
    members = _verify_members(directory, present, depth, jobs, progress)
    findings = [
        *_check_listing(directory, record, kinds),
        *_check_members(directory, record, members),
        *_check_record(directory, record, members),
        *_check_sums(directory, record, texts),
        *(finding for member in members.values() for finding in member.findings),
    ]
    data_bytes = sum(member.data_bytes for member in members.values())
    return Verification(
        directory,
        None,
        tuple(findings),
        data_bytes,
        members=tuple(members.values()),
        bundle=record,
        manifest_sha256=digest,
    )


def _verify_members(
    directory: Path, names: Iterable[str], depth: Depth, jobs: int, progress: Progress
) -> dict[str, Verification]:
    """Check members one by one; the bytes there are to hash in all are known from the first."""
    left = {name: _weights_bytes(directory / name, depth) for name in names}
    members: dict[str, Verification] = {}
    hashed = 0
    for name in [*left]:
        before = hashed
        del left[name]

        def advance(done: int, total: int, before: int = before) -> None:
            nonlocal hashed
            hashed += done
            progress(done, before + total + sum(left.values()))

        members[name] = verify(directory / name, depth=depth, jobs=jobs, progress=advance)
    return members


def _weights_bytes(directory: Path, depth: Depth) -> int:
    """Return about how many bytes are hashed of a member: all of its weights, once or twice."""
    try:
        with os.scandir(directory) as entries:
            sizes = [
                entry.stat(follow_symlinks=False).st_size
                for entry in entries
                if entry.name.endswith(_WEIGHTS_SUFFIX)
            ]
    except OSError:  # it is a finding where it is checked
        return 0
    return sum(sizes) * (2 if depth.all_digests else 1)


def _check_listing(
    directory: Path, record: BundleRecord, kinds: Mapping[str, int]
) -> Iterator[Finding]:
    expected = {*record.members, BUNDLE_NAME, SUMS_NAME}
    for name in sorted(expected - kinds.keys()):
        yield Finding("missing", "it is missing", str(directory / name), hint=REWRITTEN)
    for name in sorted(kinds.keys() - expected - {SIGNATURE_NAME}):
        yield Finding(
            "extra",
            "something that the bundle does not list",
            str(directory / name),
            expected=", ".join(sorted(expected)),
            hint="remove it, or keep it elsewhere",
        )
    for name, mode in sorted(kinds.items()):
        is_right = stat.S_ISDIR(mode) if name in record.members else stat.S_ISREG(mode)
        if name in {*expected, SIGNATURE_NAME} and not is_right:
            yield Finding(
                "kind",
                "not what the bundle wrote there",
                str(directory / name),
                expected="a directory" if name in record.members else "a regular file",
                hint=REWRITTEN,
            )


def _check_members(
    directory: Path, record: BundleRecord, members: Mapping[str, Verification]
) -> Iterator[Finding]:
    """Yield every member whose manifest is another than the one that was published."""
    for name, member in members.items():
        expected, got = record.members[name].manifest_sha256, member.manifest_sha256
        if got is not None and got != expected:
            where = str(directory / name / MANIFEST_NAME)
            yield not_the_member(name, where=where, expected=expected, got=got)


def _check_record(
    directory: Path, record: BundleRecord, members: Mapping[str, Verification]
) -> Iterator[Finding]:
    """Compare what the record says of its members with what their manifests say."""
    unread = {name for name in record.members if name not in members}
    facts: dict[str, Fact] = {}
    said: list[tuple[str, object, object]] = []
    for name, member in members.items():
        manifest, stated = member.manifest, record.members[name]
        if manifest is None:
            unread.add(name)
            continue
        facts |= _facts_of(name, manifest)
        said += [
            (f"model of {name}", manifest.model.name, stated.model),
            (f"content_sha256 of {name}", manifest.content_sha256, stated.content_sha256),
            (f"source of {name}", manifest.sources, record.sources.get(stated.source)),
        ]
    for agreed in record.agreed:
        for fact, value in agreed.values.items():
            if fact.partition(".")[0] not in unread:
                said.append((f"agreed: {fact}", facts.get(fact), value))
    for field, expected, got in said:
        if expected != got:
            yield Finding(
                "differs",
                f"{field} differs from what the manifest says",
                str(directory / BUNDLE_NAME),
                expected=str(expected),
                got=str(got),
                hint=REWRITTEN,
            )


def _facts_of(name: str, manifest: Manifest) -> Mapping[str, Fact]:
    model = manifest.model
    return facts_of(name, dims=model.dims, conventions=model.conventions, audio=model.audio)


def _check_sums(
    directory: Path, record: BundleRecord, texts: Mapping[str, bytes]
) -> Iterator[Finding]:
    if SUMS_NAME not in texts:
        return
    digests = {
        f"{name}/{MANIFEST_NAME}": member.manifest_sha256 for name, member in record.members.items()
    }
    expected = encode_sums({**digests, BUNDLE_NAME: sha256(texts[BUNDLE_NAME])})
    if texts[SUMS_NAME] != expected:
        number, want, have = first_difference(expected, texts[SUMS_NAME])
        about = want.rpartition(b"  ")[2].decode() or "the end"
        yield Finding(
            "differs",
            f"line {number} ({about}) differs, or that file was changed",
            str(directory / SUMS_NAME),
            expected=want.decode(),
            got=have[:_SHOWN_BYTES].decode(errors="backslashreplace"),
            hint=REWRITTEN,
        )
