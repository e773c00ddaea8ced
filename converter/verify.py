"""Check a canonical directory against its manifest: every byte of every file is covered.

The manifest determines the header of each weights file to the byte, so headers are built again
and compared; data is covered by the digests of the tensors; the index and ``SHA256SUMS`` are
determined by the manifest too; and ``SHA256SUMS`` covers the manifest. Nothing here needs torch.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converter import manifest as manifests
from converter.canonical import (
    INDEX_NAME,
    MANIFEST_NAME,
    PIECE_BYTES,
    SIGNATURE_NAME,
    SUMS_NAME,
    encode_index,
    encode_sums,
)
from converter.digest import sha256, sha256_range
from converter.errors import ConverterError, SourceError
from converter.finding import Finding
from converter.layout import Layout, layouts
from converter.manifest import Manifest, TensorRecord
from converter.positional import read_at

Level = Literal["header", "full"]
Progress = Callable[[int, int], None]

_CHANGED = "the directory was changed after it was written; convert the source again"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of one directory found; ``data_bytes`` is how much data was hashed."""

    directory: Path
    manifest: Manifest | None
    findings: tuple[Finding, ...]
    data_bytes: int

    @property
    def holds(self) -> bool:
        """Whether the directory is exactly what its manifest says."""
        return not self.findings


def verify(
    directory: Path, *, level: Level = "full", jobs: int, progress: Progress
) -> Verification:
    """Check every file of a canonical directory; differences are findings, never exceptions.

    ``level="header"`` leaves the data of tensors unread. ``progress`` is told the bytes hashed
    as they are, and the bytes there are. Raises SourceError when there is no such directory.
    """
    if not directory.is_dir():
        raise SourceError(
            "there is no such directory",
            code="absent",
            where=str(directory),
            hint="give the directory that convert wrote",
        )
    present, findings = _list_files(directory)
    if MANIFEST_NAME not in present:
        return Verification(directory, None, (*findings, _missing(directory, MANIFEST_NAME)), 0)
    text = (directory / MANIFEST_NAME).read_bytes()
    try:
        manifest = manifests.load(text, where=str(directory / MANIFEST_NAME))
        expected = {layout.name: layout for layout in layouts(manifest, directory)}
    except ConverterError as error:
        findings += [*error.findings, *_check_sums_of_manifest(directory, present, text)]
        return Verification(directory, None, tuple(findings), 0)
    findings += _check_listing(directory, manifest, present)
    findings += _check_totals(directory, manifest)
    findings += _check_texts(directory, manifest, expected, text, present)
    hashed = 0

    def advance(size: int) -> None:
        nonlocal hashed
        hashed += size
        progress(size, manifest.totals.bytes)

    for name, layout in expected.items():
        if name in present:
            findings += _check_weights(directory / name, layout, level, jobs, advance)
    return Verification(directory, manifest, tuple(findings), hashed)


def _list_files(directory: Path) -> tuple[set[str], list[Finding]]:
    """Return the names of the regular files, and a finding for everything else there is."""
    regular: set[str] = set()
    findings = []
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            regular.add(entry.name)
        else:
            findings.append(
                Finding(
                    "kind",
                    "not a regular file",
                    str(directory / entry.name),
                    expected="only the regular files that the manifest lists",
                    hint="a canonical directory holds no links and no directories; remove it",
                )
            )
    return regular, findings


def _check_listing(directory: Path, manifest: Manifest, present: set[str]) -> Iterator[Finding]:
    listed = {record.name for record in manifest.files} | {MANIFEST_NAME, SUMS_NAME}
    for name in sorted(listed - present):
        yield _missing(directory, name)
    for name in sorted(present - listed - {SIGNATURE_NAME}):
        yield Finding(
            "extra",
            "a file that the manifest does not list",
            str(directory / name),
            expected=", ".join(sorted(listed)),
            hint="remove it, or keep it elsewhere",
        )


def _missing(directory: Path, name: str) -> Finding:
    return Finding("missing", "the file is missing", str(directory / name), hint=_CHANGED)


def _check_totals(directory: Path, manifest: Manifest) -> Iterator[Finding]:
    """Compare the fields of the manifest that follow from its others."""
    derived = {
        "totals": (manifests.total(manifest.tensors), manifest.totals),
        "content_sha256": (manifests.content_digest(manifest.tensors), manifest.content_sha256),
    }
    for field, (expected, got) in derived.items():
        if expected != got:
            yield _differs(directory / MANIFEST_NAME, field, str(expected), str(got))


def _check_texts(
    directory: Path,
    manifest: Manifest,
    expected: Mapping[str, Layout],
    text: bytes,
    present: set[str],
) -> Iterator[Finding]:
    """Compare the files whose whole text the manifest determines."""
    digests = {record.name: record.sha256 for record in manifest.files}
    if INDEX_NAME in digests:
        index = encode_index({name: layout.placements for name, layout in expected.items()})
        if sha256(index) != digests[INDEX_NAME]:
            field = f"files: sha256 of {INDEX_NAME}"
            yield _differs(directory / MANIFEST_NAME, field, sha256(index), digests[INDEX_NAME])
        if INDEX_NAME in present:
            yield from _compare_lines(directory / INDEX_NAME, index)
    if SUMS_NAME in present:
        sums = encode_sums({**digests, MANIFEST_NAME: sha256(text)})
        yield from _compare_lines(directory / SUMS_NAME, sums)


def _compare_lines(path: Path, expected: bytes) -> Iterator[Finding]:
    got = path.read_bytes()
    if got == expected:
        return
    wanted, found = expected.split(b"\n"), got.split(b"\n")
    for number in range(max(len(wanted), len(found))):
        want = wanted[number] if number < len(wanted) else b""
        have = found[number] if number < len(found) else b""
        if want != have:
            about = want.rpartition(b"  ")[2].decode() or "the end of the file"
            what = f"line {number + 1} ({about})"
            yield _differs(path, what, want.decode(), have.decode(errors="backslashreplace"))


def _check_sums_of_manifest(directory: Path, present: set[str], text: bytes) -> Iterator[Finding]:
    """Say whether ``SHA256SUMS`` knows this manifest, when the manifest itself is of no help."""
    if SUMS_NAME not in present:
        yield _missing(directory, SUMS_NAME)
        return
    stated = (directory / SUMS_NAME).read_bytes().split(b"\n")
    line = f"{sha256(text)}  {MANIFEST_NAME}".encode()
    if line not in stated:
        yield Finding(
            "digest",
            f"{MANIFEST_NAME} is not the one that {SUMS_NAME} was written for",
            str(directory / MANIFEST_NAME),
            got=sha256(text),
            hint=_CHANGED,
        )


def _check_weights(
    path: Path, layout: Layout, level: Level, jobs: int, advance: Callable[[int], None]
) -> list[Finding]:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        return [_unreadable(path, error)]
    try:
        size = os.fstat(descriptor).st_size
        if size != layout.size:
            return [_differs(path, "size in bytes", str(layout.size), str(size))]
        findings = list(_check_header(descriptor, path, layout))
        if level == "full":
            findings += _check_data(descriptor, path, layout, jobs, advance)
        return findings
    except (OSError, EOFError) as error:
        return [_unreadable(path, error)]
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: Exception) -> Finding:
    return Finding("unreadable", f"cannot be read: {error}", str(path))


def _check_header(descriptor: int, path: Path, layout: Layout) -> Iterator[Finding]:
    header = bytearray(len(layout.header))
    read_at(descriptor, header, 0)
    if header == layout.header:
        return
    at = next(n for n, (a, b) in enumerate(zip(header, layout.header, strict=True)) if a != b)
    yield Finding(
        "header",
        f"the header differs from the manifest at byte {at}",
        str(path),
        tensor=_owner_in_header(layout, at),
        expected=repr(layout.header[at : at + 16])[1:],
        got=repr(bytes(header[at : at + 16]))[1:],
        hint=_CHANGED,
    )


def _owner_in_header(layout: Layout, at: int) -> str | None:
    """Return the tensor in whose entry of the header a byte lies."""
    owner = None
    for record in layout.tensors:
        if layout.header.index(f'"{record.name}":'.encode()) > at:
            break
        owner = record.name
    ends = len(layout.header.rstrip(b" ")) - 1
    return owner if at < ends else None


def _check_data(
    descriptor: int, path: Path, layout: Layout, jobs: int, advance: Callable[[int], None]
) -> list[Finding]:
    """Hash every tensor, in pieces where the manifest has digests of pieces, on all workers."""
    pieces = [piece for record in layout.tensors for piece in _pieces(record)]
    with ThreadPoolExecutor(jobs) as pool:
        digests = pool.map(lambda piece: sha256_range(descriptor, piece.begin, piece.end), pieces)
        findings = []
        for piece, digest in zip(pieces, digests, strict=True):
            advance(piece.end - piece.begin)
            if digest != piece.sha256:
                findings.append(_changed(path, piece, digest))
    return findings


@dataclass(frozen=True, slots=True)
class _Piece:
    """The bytes ``[begin, end)`` of a file that one digest of a tensor covers."""

    tensor: str
    begin: int
    end: int
    sha256: str


def _pieces(record: TensorRecord) -> Iterator[_Piece]:
    end = record.offset + record.size
    step = PIECE_BYTES if record.pieces else record.size
    for number, digest in enumerate(record.pieces or (record.sha256,)):
        begin = record.offset + number * step
        yield _Piece(record.name, begin, min(begin + step, end), digest)


def _changed(path: Path, piece: _Piece, digest: str) -> Finding:
    return Finding(
        "digest",
        f"the data of a tensor has changed (bytes {piece.begin} to {piece.end} of the file)",
        str(path),
        tensor=piece.tensor,
        expected=f"sha256 {piece.sha256}",
        got=f"sha256 {digest}",
        hint=_CHANGED,
    )


def _differs(path: Path, field: str, expected: str, got: str) -> Finding:
    return Finding(
        "differs", f"{field} differs", str(path), expected=expected, got=got, hint=_CHANGED
    )
