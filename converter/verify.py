"""Check a canonical directory against its manifest: every byte of every file is covered.

The manifest determines the header of each weights file to the byte, so headers are built again
and compared; data is covered by the digests of the tensors; the index and ``SHA256SUMS`` are
determined by the manifest too; and ``SHA256SUMS`` covers the manifest. Nothing here needs torch.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from converter import manifest as manifests
from converter.bundle_record import BundleRecord
from converter.canonical import (
    FILE_NAME,
    INDEX_NAME,
    MANIFEST_NAME,
    PIECE_BYTES,
    SIGNATURE_NAME,
    SUMS_NAME,
    encode_index,
    encode_sums,
)
from converter.digest import sha256
from converter.errors import ConverterError, SourceError, UsageError
from converter.finding import Finding
from converter.layout import REWRITTEN, Layout, layouts
from converter.manifest import FileRecord, Manifest
from converter.progress import Progress
from converter.strict_json import MAX_BYTES
from converter.typed_json import first_difference
from converter.verify_weights import Part, check_weights, parts_again, parts_of

Level = Literal["header", "full"]

_PROVEN = {
    "header": "proven right are names, dtypes, shapes, offsets, sizes and totals; anything else "
    "may have changed. Convert the source again",
    "full": "proven right are names, dtypes, shapes, offsets, sizes, digests and totals; what may "
    "have changed is tool, model, rules, sources, aliases, dropped, stand_ins, out_of_scope, or "
    "the sources, steps and stats of tensors. Convert the source again",
}
_TEXTS = (MANIFEST_NAME, SUMS_NAME, INDEX_NAME)
_SUM_OF_MANIFEST = re.compile(rb"^([0-9a-f]{64})  manifest\.json$", re.MULTILINE)
_INDEX_ENTRY = re.compile(r' *"([^"]+)": "[^"]+\.safetensors",?$')
_SHOWN_BYTES = 200


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of one directory found; ``data_bytes`` is how much data was hashed.

    A bundle has ``members`` and a ``bundle`` record in place of a manifest; its findings are its
    own and those of its members. ``manifest_sha256`` is the digest to pin: that of the manifest,
    or of a bundle's record. ``findings`` say what is not as the directory says of itself,
    ``distrusted`` what is not as the caller trusts it to be, ``trusted_by`` by what it is
    (``pin``). ``derived`` says that all of it was derived again from the source.
    """

    directory: Path
    manifest: Manifest | None
    findings: tuple[Finding, ...]
    data_bytes: int
    members: tuple[Verification, ...] = ()
    bundle: BundleRecord | None = None
    manifest_sha256: str | None = None
    distrusted: tuple[Finding, ...] = ()
    trusted_by: tuple[str, ...] = ()
    derived: bool = False

    @property
    def holds(self) -> bool:
        """Whether the directory is exactly what its manifest says, and what the caller trusts."""
        return not self.findings and not self.distrusted


@dataclass(frozen=True, slots=True)
class Depth:
    """How much of the data is hashed: none of it, each byte once, or every digest there is.

    Raises UsageError for another level, and for digests of data that is not to be read.
    """

    level: Level = "full"
    all_digests: bool = False

    def __post_init__(self) -> None:
        if self.level not in get_args(Level):
            raise UsageError(f"unknown level {self.level!r}", expected="'header' or 'full'")
        if self.all_digests and self.level == "header":
            raise UsageError(
                "all digests cannot be checked without the data",
                expected="the level full",
                got="the level header",
            )


def verify(directory: Path, *, depth: Depth, jobs: int, progress: Progress) -> Verification:
    """Check every file of a canonical directory; differences are findings, never exceptions.

    ``progress`` is told the bytes hashed as they are, and the bytes there are to hash. Raises
    SourceError when there is no such directory or it cannot be read.
    """
    if not os.path.isdir(directory):
        raise SourceError(
            "not a directory" if os.path.exists(directory) else "there is no such directory",
            code="absent",
            where=str(directory),
            hint="give the directory that convert wrote",
        )
    try:
        return _verify(directory, depth, jobs, progress)
    except OSError as error:
        where = str(error.filename or directory)
        raise SourceError(f"cannot be read: {error.strerror}", code="io", where=where) from error


def read_text(path: Path) -> bytes:
    """Return a file that is small when it is honest. Raises OSError, also for a huge one."""
    if path.stat().st_size > MAX_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return path.read_bytes()


def _verify(directory: Path, depth: Depth, jobs: int, progress: Progress) -> Verification:
    present, findings = _list_files(directory)
    texts = {name: read_text(directory / name) for name in _TEXTS if name in present}
    if MANIFEST_NAME not in texts:
        where = str(directory / MANIFEST_NAME)
        found = [finding for finding in findings if finding.where == where]
        return Verification(directory, None, (*found, _no_manifest(directory)), 0)
    digest = sha256(texts[MANIFEST_NAME])
    try:
        manifest = manifests.load(texts[MANIFEST_NAME], where=str(directory / MANIFEST_NAME))
        expected = {layout.name: layout for layout in layouts(manifest, directory)}
    except ConverterError as error:
        findings += [*error.findings, *_check_manifest(directory, texts)]
        return Verification(directory, None, tuple(findings), 0, manifest_sha256=digest)
    findings += _check_listing(directory, manifest, present)
    findings += _check_derived(directory, manifest, expected)
    findings += _check_index(directory, expected, texts)
    findings += _check_sums(directory, manifest, texts)
    weights = {name: layout for name, layout in expected.items() if name in present}
    hashed, found = _check_weights(directory, manifest, weights, depth, jobs, progress)
    findings += found
    hint = REWRITTEN if findings else _PROVEN[depth.level]
    findings += _check_manifest(directory, texts, hint=hint)
    return Verification(directory, manifest, tuple(findings), hashed, manifest_sha256=digest)


def _check_weights(
    directory: Path,
    manifest: Manifest,
    weights: Mapping[str, Layout],
    depth: Depth,
    jobs: int,
    progress: Progress,
) -> tuple[int, list[Finding]]:
    """Return how many bytes of data were hashed, and how the weights files differ."""
    data_bytes = 0
    parts: dict[str, tuple[Part, ...]] = {}
    if depth.level == "full":
        stated = {file.name: file.sha256 for file in manifest.files}
        for name, layout in weights.items():
            again = parts_again(layout, stated[name]) if depth.all_digests else ()
            parts[name] = (*again, *parts_of(layout))
    total = sum(part.size for listed in parts.values() for part in listed)

    def advance(part: Part) -> None:
        nonlocal data_bytes
        data_bytes += 0 if part.again else part.size
        progress(part.size, total)

    findings: list[Finding] = []
    for name, layout in weights.items():
        findings += check_weights(
            directory / name, layout, parts.get(name, ()), jobs=jobs, advance=advance
        )
    return data_bytes, findings


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


def _no_manifest(directory: Path) -> Finding:
    return Finding(
        "missing",
        "not a canonical directory: there is no manifest",
        str(directory / MANIFEST_NAME),
        hint="give the directory that convert wrote; if it is this one, convert the source again",
    )


def _missing(directory: Path, name: str) -> Finding:
    return Finding("missing", "the file is missing", str(directory / name), hint=REWRITTEN)


def _check_derived(
    directory: Path, manifest: Manifest, expected: Mapping[str, Layout]
) -> Iterator[Finding]:
    """Compare the fields of the manifest that follow from its others."""
    index = _index_of(expected)
    listed = [record.name for record in manifest.files]
    derived: dict[str, tuple[object, object]] = {
        "totals": (manifests.total(manifest.tensors), manifest.totals),
        "content_sha256": (manifests.content_digest(manifest.tensors), manifest.content_sha256),
        "files": ([*expected, *([INDEX_NAME] if index else [])], listed),
    }
    if index:
        wanted = FileRecord(INDEX_NAME, len(index), sha256(index))
        got = next((record for record in manifest.files if record.name == INDEX_NAME), None)
        derived[f"files: {INDEX_NAME}"] = (wanted, got)
    for field, (want, have) in derived.items():
        if want != have:
            yield _differs(directory / MANIFEST_NAME, field, str(want), str(have))
    for record in manifest.tensors:
        count = -(-record.size // PIECE_BYTES) if record.size > PIECE_BYTES else 0
        if len(record.pieces) != count:
            pieces = str(count), str(len(record.pieces))
            yield _differs(directory / MANIFEST_NAME, "number of pieces", *pieces, record.name)


def _index_of(expected: Mapping[str, Layout]) -> bytes:
    """Return the index of the weights files; nothing for one file, which needs none."""
    if len(expected) == 1:
        return b""
    return encode_index({name: layout.placements for name, layout in expected.items()})


def _check_index(
    directory: Path, expected: Mapping[str, Layout], texts: Mapping[str, bytes]
) -> Iterator[Finding]:
    index = _index_of(expected)
    if index and INDEX_NAME in texts and texts[INDEX_NAME] != index:
        number, want, have = _first_difference(index, texts[INDEX_NAME])
        entry = _INDEX_ENTRY.match(want)
        tensor = entry[1] if entry else None
        yield _differs(directory / INDEX_NAME, f"line {number}", want, have, tensor)


def _check_sums(
    directory: Path, manifest: Manifest, texts: Mapping[str, bytes]
) -> Iterator[Finding]:
    if SUMS_NAME not in texts:
        return
    digests = {f.name: f.sha256 for f in manifest.files if FILE_NAME.fullmatch(f.name)}
    digests[MANIFEST_NAME] = _foreign_digest(texts) or sha256(texts[MANIFEST_NAME])
    sums = encode_sums(digests)
    if texts[SUMS_NAME] != sums:
        number, want, have = _first_difference(sums, texts[SUMS_NAME])
        about = want.rpartition("  ")[2] or "the end"
        yield _differs(directory / SUMS_NAME, f"line {number} ({about})", want, have)


def _check_manifest(
    directory: Path, texts: Mapping[str, bytes], *, hint: str = REWRITTEN
) -> Iterator[Finding]:
    """Say whether ``SHA256SUMS`` was written for another manifest."""
    if digest := _foreign_digest(texts):
        yield Finding(
            "digest",
            f"not the manifest that {SUMS_NAME} was written for",
            str(directory / MANIFEST_NAME),
            expected=f"sha256 {digest}",
            got=f"sha256 {sha256(texts[MANIFEST_NAME])}",
            hint=hint,
        )


def _foreign_digest(texts: Mapping[str, bytes]) -> str | None:
    """Return the digest that ``SHA256SUMS`` has for the manifest, if it is that of another one.

    Digests of two manifests have next to no digits in common; one that is almost that of the
    manifest here was damaged itself.
    """
    stated = _SUM_OF_MANIFEST.search(texts.get(SUMS_NAME, b""))
    if stated is None:
        return None
    digest = stated[1].decode()
    alike = sum(a == b for a, b in zip(digest, sha256(texts[MANIFEST_NAME]), strict=True))
    return digest if alike < len(digest) // 2 else None


def _first_difference(expected: bytes, got: bytes) -> tuple[int, str, str]:
    number, want, have = first_difference(expected, got)
    return number, want.decode(), have[:_SHOWN_BYTES].decode(errors="backslashreplace")


def _differs(path: Path, field: str, expected: str, got: str, tensor: str | None = None) -> Finding:
    what = f"{field} differs"
    return Finding("differs", what, str(path), tensor, expected, got, hint=REWRITTEN)
