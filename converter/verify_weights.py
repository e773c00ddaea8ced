"""Check one canonical weights file: its size, every byte of its header, and its data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from converter.canonical import PIECE_BYTES
from converter.digest import sha256_range
from converter.finding import Finding
from converter.header import LENGTH_BYTES
from converter.layout import REWRITTEN, Layout
from converter.manifest import TensorRecord
from converter.positional import open_flags, read_at

_FLAGS = open_flags("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")


def check_weights(
    path: Path, layout: Layout, *, full: bool, jobs: int, advance: Callable[[int], None]
) -> list[Finding]:
    """Return how a weights file differs from its layout; its data is read if ``full``.

    ``advance`` is told the bytes of data hashed, as they are.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        return [_unreadable(path, error)]
    try:
        size = os.fstat(descriptor).st_size
        if size != layout.size:
            expected, got = f"{layout.size:,} bytes", f"{size:,} bytes"
            what = "the file is cut short" if size < layout.size else "the file is too long"
            return [Finding("size", what, str(path), None, expected, got, REWRITTEN)]
        findings = list(_check_header(descriptor, path, layout))
        if full:
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
    tensor, field = _place_in_header(layout, at)
    yield Finding(
        "header",
        f"the header differs from what the manifest gives at byte {at} of the file ({field})",
        str(path),
        tensor=tensor,
        expected=repr(layout.header[at : at + 16])[1:],
        got=repr(bytes(header[at : at + 16]))[1:],
        hint=REWRITTEN,
    )


def _place_in_header(layout: Layout, at: int) -> tuple[str | None, str]:
    """Return the tensor in whose entry a byte of the header lies, if any, and what lies there."""
    if at < LENGTH_BYTES:
        return None, "its length"
    if at >= len(layout.header.rstrip(b" ")) - 1:
        return None, "its end"
    owner = None
    for record in layout.tensors:
        if layout.header.index(f'"{record.name}":{{"dtype"'.encode()) > at:
            break
        owner = record.name
    return owner, "its metadata" if owner is None else "the entry of a tensor"


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
        f"the data is not what the manifest has, in bytes {piece.begin} to {piece.end} of the file",
        str(path),
        tensor=piece.tensor,
        expected=f"sha256 {piece.sha256}",
        got=f"sha256 {digest}",
        hint=REWRITTEN,
    )
