"""Check a bundle: its record, its members one by one, and that they are the ones it names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from converter import bundle_record
from converter.bundle_record import BUNDLE_NAME, BundleRecord
from converter.canonical import MANIFEST_NAME, SIGNATURE_NAME, SUMS_NAME, encode_sums
from converter.digest import sha256
from converter.errors import SourceError
from converter.finding import Finding
from converter.layout import REWRITTEN
from converter.verify import Level, Progress, Verification, verify


def verify_bundle(directory: Path, *, level: Level, jobs: int, progress: Progress) -> Verification:
    """Check every file of a bundle; differences are findings, never exceptions.

    Raises SourceError when a file or directory cannot be read.
    """
    path = directory / BUNDLE_NAME
    try:
        text = path.read_bytes()
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise SourceError(
            f"cannot be read: {error.strerror}", code="io", where=str(path)
        ) from error
    try:
        record = bundle_record.load(text, where=str(path))
    except SourceError as error:
        return Verification(directory, None, error.findings, 0)
    members = [
        verify(directory / name, level=level, jobs=jobs, progress=progress)
        for name in record.members
        if name in names and (directory / name).is_dir()
    ]
    found = [
        *_check_listing(directory, record, names),
        *_check_members(directory, record, names),
        *_check_sums(directory, record, text, names),
    ]
    findings = (*found, *(finding for member in members for finding in member.findings))
    data_bytes = sum(member.data_bytes for member in members)
    return Verification(directory, None, findings, data_bytes, tuple(members))


def _check_listing(directory: Path, record: BundleRecord, names: list[str]) -> Iterator[Finding]:
    expected = {*record.members, BUNDLE_NAME, SUMS_NAME}
    for name in sorted(expected - {*names}):
        yield Finding("missing", "it is missing", str(directory / name), hint=REWRITTEN)
    for name in sorted({*names} - expected - {SIGNATURE_NAME}):
        yield Finding(
            "extra",
            "something that the bundle does not list",
            str(directory / name),
            expected=", ".join(sorted(expected)),
            hint="remove it, or keep it elsewhere",
        )
    for name in names:
        path = directory / name
        if name in expected and (path.is_symlink() or path.is_dir() != (name in record.members)):
            yield Finding("kind", "not what the bundle wrote there", str(path), hint=REWRITTEN)


def _check_members(directory: Path, record: BundleRecord, names: list[str]) -> Iterator[Finding]:
    for name, digest in _manifest_digests(directory, record, names).items():
        if digest != record.members[name].manifest_sha256:
            yield Finding(
                "bundle",
                f"{name} is not the member that the bundle was published with",
                str(directory / name / MANIFEST_NAME),
                expected=f"sha256 {record.members[name].manifest_sha256}",
                got=f"sha256 {digest}",
                hint="members of different bundles do not fit together; convert the bundle again",
            )


def _manifest_digests(directory: Path, record: BundleRecord, names: list[str]) -> Mapping[str, str]:
    paths = {name: directory / name / MANIFEST_NAME for name in record.members if name in names}
    return {name: sha256(path.read_bytes()) for name, path in paths.items() if path.is_file()}


def _check_sums(
    directory: Path, record: BundleRecord, text: bytes, names: list[str]
) -> Iterator[Finding]:
    if SUMS_NAME not in names:
        return
    digests = {
        f"{name}/{MANIFEST_NAME}": member.manifest_sha256 for name, member in record.members.items()
    }
    expected = encode_sums({**digests, BUNDLE_NAME: sha256(text)})
    got = (directory / SUMS_NAME).read_bytes()
    if got != expected:
        lines = zip(expected.split(b"\n"), [*got.split(b"\n"), b""], strict=False)
        want, have = next((pair for pair in lines if pair[0] != pair[1]), (b"", b"more lines"))
        about = want.rpartition(b"  ")[2].decode() or "the end"
        yield Finding(
            "differs",
            f"the line of {about} differs, or that file was changed",
            str(directory / SUMS_NAME),
            expected=want.decode(),
            got=have.decode(errors="backslashreplace"),
            hint=REWRITTEN,
        )
