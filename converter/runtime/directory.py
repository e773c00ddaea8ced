"""Open a canonical directory, and prove that it is one before a byte of its weights is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from converter import manifest as manifests
from converter.bundle_record import not_the_member
from converter.canonical import MANIFEST_NAME, SUMS_NAME, encode_sums
from converter.digest import sha256
from converter.errors import MismatchError, SourceError
from converter.layout import REWRITTEN, Layout, layouts
from converter.manifest import Manifest, TensorRecord
from converter.runtime.collector import paused

T = TypeVar("T")

# A manifest has some hundred bytes for each tensor: whatever is longer than this is none.
_MAX_TEXT_BYTES = 1 << 30
# While each attempt meets another tree, somebody publishes faster than a manifest can be read.
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class CanonicalDirectory:
    """A canonical directory whose manifest and headers agree."""

    path: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A weights file, open for reading: its header is proven, its data is not read.

    Data is the bytes ``[data_begin, size)``; ``tensors`` are in the order of their data; ``status``
    is that of before its header was read.
    """

    path: Path
    descriptor: int
    data_begin: int
    size: int
    tensors: tuple[TensorRecord, ...]
    status: os.stat_result

    @property
    def data_bytes(self) -> int:
        """Size of the data in bytes."""
        return self.size - self.data_begin


@dataclass(frozen=True, slots=True)
class OpenDirectory:
    """A canonical directory and its open weights files, in shard order."""

    path: Path
    manifest: Manifest
    files: tuple[OpenFile, ...]


def open_canonical(path: str | os.PathLike[str]) -> CanonicalDirectory:
    """Check that ``path`` is a canonical directory and return what its manifest says.

    Read are the manifest and the headers, not the weights. Raises SourceError when ``path`` is
    absent or not a canonical directory of a known format version, and MismatchError, with file
    and field, when the manifest and a file disagree.
    """
    with opened(path, statistics=True) as canonical:
        return CanonicalDirectory(canonical.path, canonical.manifest)


@contextmanager
def opened(
    path: str | os.PathLike[str], *, full: bool = False, statistics: bool = False
) -> Iterator[OpenDirectory]:
    """Open a canonical directory and its weights files; errors are those of ``open_canonical``.

    ``full`` proves the manifest by ``SHA256SUMS`` too; its ``statistics`` are read if asked.
    """
    path = Path(path)
    open_in = partial(open_files, path=path, full=full, statistics=statistics)
    with ExitStack() as stack:
        yield open_tree(path, stack, open_in)


def open_tree(path: Path, stack: ExitStack, open_in: Callable[[int, ExitStack], T]) -> T:
    """Return what ``open_in`` makes of the folder at ``path``; ``stack`` closes what it opened.

    All is opened relative to one folder: when another tree is published at ``path`` meanwhile,
    everything still comes from the old one, or, when files of that are gone already, from the new.
    """
    attempts = 0
    while True:
        attempts += 1
        with ExitStack() as tree:
            folder = open_folder(path)
            tree.callback(os.close, folder)
            try:
                made = open_in(folder, tree)
            except (MismatchError, SourceError):
                if attempts == _ATTEMPTS or _is_at(folder, path):
                    raise
                continue
            stack.enter_context(tree.pop_all())
            return made


@paused()
def open_files(
    folder: int,
    stack: ExitStack,
    *,
    path: Path,
    full: bool,
    statistics: bool = False,
    manifest_sha256: str | None = None,
) -> OpenDirectory:
    """Open the weights files of a canonical directory by its manifest, both in ``folder``.

    ``path`` is where that was found; ``manifest_sha256`` is that of the only manifest that will
    do. Raises as ``open_canonical``, and MismatchError for any other manifest.
    """
    manifest = _read_manifest(folder, path, manifest_sha256, full=full, statistics=statistics)
    files = []
    for layout in layouts(manifest, path):
        descriptor = _open_file(folder, path / layout.name)
        stack.callback(os.close, descriptor)
        files.append(_check_file(descriptor, layout, path / layout.name))
    return OpenDirectory(path, manifest, tuple(files))


def require_unchanged(file: OpenFile) -> None:
    """Raise MismatchError when ``file`` was written to since it was opened, as its times tell."""
    _require_same(file.status, os.fstat(file.descriptor), file.path)


def read_file(folder: int, path: Path) -> bytes:
    """Return what the file of ``folder`` that was found at ``path`` holds, at one moment.

    Raises MismatchError when there is none or it changes meanwhile, and SourceError.
    """
    with reading(path), os.fdopen(_open_file(folder, path), "rb") as file:
        before = os.fstat(file.fileno())
        if before.st_size > _MAX_TEXT_BYTES:
            raise SourceError(
                "too large a file",
                code="size",
                where=str(path),
                expected=f"at most {_MAX_TEXT_BYTES:,} bytes",
                got=f"{before.st_size:,} bytes",
            )
        text = file.read(before.st_size)
        _require_same(before, os.fstat(file.fileno()), path)
    return text


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError into a SourceError that names ``path``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError(f"cannot be read: {reason}", code="io", where=str(path)) from error


def open_folder(path: Path, within: int | None = None) -> int:
    """Open the folder at ``path``, or that of its name ``within`` another, which is no link there.

    Raises SourceError.
    """
    name: Path | str = path
    flags = os.O_RDONLY | os.O_DIRECTORY
    if within is not None:
        name, flags = path.name, flags | os.O_NOFOLLOW
    with reading(path):
        try:
            return os.open(name, flags, dir_fd=within)
        except NotADirectoryError:
            raise SourceError(
                "not a directory",
                where=str(path),
                hint="give the directory that `convert` wrote, not a file in it",
            ) from None


def _open_file(folder: int, path: Path) -> int:
    """Open a regular file of ``folder``; a link is not followed, a pipe is not waited for."""
    with reading(path):
        try:
            status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            raise MismatchError(
                "the file is missing", code="file", where=str(path), hint=REWRITTEN
            ) from None
        if stat.S_ISREG(status.st_mode):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(path.name, flags, dir_fd=folder)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
    raise SourceError(
        "not a regular file",
        code="file",
        where=str(path),
        hint="a canonical directory holds its files itself; copy them, do not link them",
    )


def _read_manifest(
    folder: int, path: Path, pinned: str | None, *, full: bool, statistics: bool
) -> Manifest:
    with reading(path):
        names = os.listdir(folder)
    if MANIFEST_NAME not in names:
        raise SourceError(
            f"not a canonical directory: it holds no {MANIFEST_NAME}",
            where=str(path),
            hint="`convert --model NAME IN OUT` writes one",
        )
    where = path / MANIFEST_NAME
    text = read_file(folder, where)
    if pinned is not None and (got := sha256(text)) != pinned:
        finding = not_the_member(path.name, where=str(where), expected=pinned, got=got)
        raise MismatchError.of([finding])
    manifest = manifests.load(text, where=str(where), statistics=statistics)
    if full:
        sums = {record.name: record.sha256 for record in manifest.files}
        require_sums(folder, path, {**sums, MANIFEST_NAME: sha256(text)}, MANIFEST_NAME)
    return manifest


def require_sums(folder: int, path: Path, sums: Mapping[str, str], name: str) -> None:
    """Raise MismatchError when ``SHA256SUMS`` was not written with the file ``name``.

    Nothing else vouches for every byte of that file, from which ``sums`` were made.
    """
    if read_file(folder, path / SUMS_NAME) != encode_sums(sums):
        raise MismatchError(
            f"not the file that {SUMS_NAME} was written with, or that was changed",
            code="digest",
            where=str(path / name),
            got=f"sha256 {sums[name]}",
            hint=REWRITTEN,
        )


def _check_file(descriptor: int, layout: Layout, path: Path) -> OpenFile:
    """Prove that an open file has the size and the header of its layout."""
    status = os.fstat(descriptor)
    if status.st_size != layout.size:
        raise MismatchError(
            "size: the file is not as long as the manifest says",
            code="size",
            where=str(path),
            expected=f"{layout.size} bytes",
            got=f"{status.st_size} bytes",
            hint=REWRITTEN,
        )
    with reading(path):
        header = os.pread(descriptor, len(layout.header), 0)
    if header != layout.header:
        pairs = enumerate(zip(header, layout.header, strict=False))
        same = next((i for i, (got, expected) in pairs if got != expected), len(header))
        raise MismatchError(
            f"header: byte {same} is not what the manifest gives",
            code="header",
            where=str(path),
            expected=repr(layout.header[same : same + 24]),
            got=repr(header[same : same + 24]),
            hint=REWRITTEN,
        )
    return OpenFile(path, descriptor, len(header), status.st_size, layout.tensors, status)


def _require_same(before: os.stat_result, after: os.stat_result, path: Path) -> None:
    changed = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    # The time of the inode tells of writes whose other time was set back. It changes too when a
    # name is given to the file or taken from it, as from the files of a tree that was replaced.
    if before.st_nlink == after.st_nlink:
        changed = changed or before.st_ctime_ns != after.st_ctime_ns
    if changed:
        raise MismatchError(
            "the file changed while it was read",
            code="changed",
            where=str(path),
            hint="load again once nothing writes to it",
        )


def _is_at(folder: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(folder), os.stat(path))
    except OSError:
        return False
