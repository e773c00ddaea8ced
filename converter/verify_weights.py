"""Check one canonical weights file: its size, every byte of its header, and its data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from converter.canonical import PIECE_BYTES
from converter.digest import blocks, sha256_range
from converter.finding import Finding
from converter.header import LENGTH_BYTES
from converter.layout import REWRITTEN, Layout
from converter.positional import open_flags, read_at

_FLAGS = open_flags("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes ``[begin, end)`` of a file that one digest covers; ``again`` if others do too.

    ``tensor`` is None for the digest of a whole file.
    """

    tensor: str | None
    begin: int
    end: int
    sha256: str
    again: bool = False

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.end - self.begin


def parts_of(layout: Layout) -> Iterator[Part]:
    """Yield parts that cover each byte of data once, by the digests of tensors or their pieces."""
    for record in layout.tensors:
        end = record.offset + record.size
        step = PIECE_BYTES if record.pieces else record.size
        for number, digest in enumerate(record.pieces or (record.sha256,)):
            begin = record.offset + number * step
            yield Part(record.name, begin, min(begin + step, end), digest)


def parts_again(layout: Layout, file_sha256: str) -> Iterator[Part]:
    """Yield what is left of the digests: of the whole file, and of whole tensors with pieces."""
    yield Part(None, 0, layout.size, file_sha256, again=True)
    for record in layout.tensors:
        if record.pieces:
            end = record.offset + record.size
            yield Part(record.name, record.offset, end, record.sha256, again=True)


def check_weights(
    path: Path,
    layout: Layout,
    parts: Sequence[Part],
    *,
    jobs: int,
    advance: Callable[[Part], None],
) -> list[Finding]:
    """Return how a weights file differs from its layout, and ``parts`` of it from their digests.

    ``advance`` is told of each part that was hashed.
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
        changed = _changed_parts(descriptor, parts, jobs, advance)
        if parts:
            findings += _check_booleans(descriptor, path, layout)
        told = {part.tensor for part, _ in changed if not part.again}
        for part, digest in changed:
            # A digest that covers bytes again has news only where all below it are right.
            below = told & {part.tensor} if part.tensor else (told or findings)
            if not (part.again and below):
                findings.append(_changed(path, part, digest))
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


def _check_booleans(descriptor: int, path: Path, layout: Layout) -> Iterator[Finding]:
    """Yield every boolean tensor with bytes that no conversion writes, whatever digests say."""
    for record in layout.tensors:
        if record.dtype == "BOOL":
            wrong = sum(
                len(bytes(block).translate(None, b"\0\1"))
                for block in blocks(descriptor, record.offset, record.offset + record.size)
            )
            if wrong:
                yield Finding(
                    "boolean",
                    "a boolean tensor holds bytes other than 0 and 1",
                    str(path),
                    tensor=record.name,
                    expected="0 or 1",
                    got=f"{wrong} of {record.size} bytes are not",
                    hint=REWRITTEN,
                )


def _changed_parts(
    descriptor: int, parts: Sequence[Part], jobs: int, advance: Callable[[Part], None]
) -> list[tuple[Part, str]]:
    """Hash every part, on all workers; return those with another digest, and that digest."""
    changed = []
    with ThreadPoolExecutor(jobs) as pool:
        digests = pool.map(lambda part: sha256_range(descriptor, part.begin, part.end), parts)
        for part, digest in zip(parts, digests, strict=True):
            advance(part)
            if digest != part.sha256:
                changed.append((part, digest))
    return changed


def _changed(path: Path, part: Part, digest: str) -> Finding:
    what = f"the data is not what the manifest has, in bytes {part.begin} to {part.end} of the file"
    if part.again:
        owner = "tensor" if part.tensor else "file"
        what = f"the manifest has another digest for the whole {owner} than its parts have"
    return Finding(
        "digest",
        what,
        str(path),
        tensor=part.tensor,
        expected=f"sha256 {part.sha256}",
        got=f"sha256 {digest}",
        hint=REWRITTEN,
    )
