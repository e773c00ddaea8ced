"""Open a canonical directory, and prove that it is one before a byte of its weights is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from converter import manifest as manifests
from converter.bundle_record import not_the_member
from converter.canonical import MANIFEST_NAME
from converter.digest import sha256
from converter.errors import MismatchError, SourceError
from converter.layout import REWRITTEN, Layout, layouts
from converter.manifest import Manifest, TensorRecord


@dataclass(frozen=True, slots=True)
class CanonicalDirectory:
    """A canonical directory whose manifest and headers agree."""

    path: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A weights file, open for reading: its header is proven, its data is not read.

    Data is the bytes ``[data_begin, size)``; ``tensors`` are in the order of their data; ``state``
    changes when somebody writes to the file or replaces it.
    """

    path: Path
    descriptor: int
    data_begin: int
    size: int
    tensors: tuple[TensorRecord, ...]
    state: tuple[int, ...]

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
    with opened(path) as canonical:
        return CanonicalDirectory(canonical.path, canonical.manifest)


@contextmanager
def opened(
    path: str | os.PathLike[str], *, manifest_sha256: str | None = None
) -> Iterator[OpenDirectory]:
    """Open a canonical directory and its weights files; errors are those of ``open_canonical``.

    Raises MismatchError too when ``manifest_sha256`` is not that of the manifest which is read.
    """
    path = Path(path)
    with ExitStack() as stack:
        # Files are opened relative to this folder: when another tree is published at the path
        # meanwhile, manifest and weights still come from one and the same.
        folder = _open_folder(path)
        stack.callback(os.close, folder)
        manifest = _read_manifest(folder, path, manifest_sha256)
        files = []
        for layout in layouts(manifest, path):
            descriptor = _open_file(folder, path / layout.name)
            stack.callback(os.close, descriptor)
            files.append(_check_file(descriptor, layout, path / layout.name))
        yield OpenDirectory(path, manifest, tuple(files))


def require_unchanged(file: OpenFile) -> None:
    """Raise MismatchError when ``file`` was written to or replaced since it was opened."""
    if _state(os.fstat(file.descriptor)) != file.state:
        raise MismatchError(
            "the file changed while it was read",
            code="changed",
            where=str(file.path),
            hint="load again once nothing writes to it",
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError into a SourceError that names ``path``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError(f"cannot be read: {reason}", code="io", where=str(path)) from error


def _open_folder(path: Path) -> int:
    if os.path.exists(path) and not os.path.isdir(path):
        raise SourceError(
            "not a directory",
            where=str(path),
            hint="give the directory that `convert` wrote, not a file in it",
        )
    with reading(path):
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def _open_file(folder: int, path: Path) -> int:
    """Open a regular file of ``folder``; a link is not followed, a pipe is not waited for."""
    with reading(path):
        try:
            status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            raise MismatchError(
                "a file of the manifest is missing", code="file", where=str(path), hint=REWRITTEN
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


def _read_manifest(folder: int, path: Path, pinned: str | None) -> Manifest:
    with reading(path):
        names = os.listdir(folder)
    if MANIFEST_NAME not in names:
        raise SourceError(
            f"not a canonical directory: it holds no {MANIFEST_NAME}",
            where=str(path),
            hint="`convert --model NAME IN OUT` writes one",
        )
    where = path / MANIFEST_NAME
    with reading(where), os.fdopen(_open_file(folder, where), "rb") as file:
        text = file.read()
    if pinned is not None and (got := sha256(text)) != pinned:
        finding = not_the_member(path.name, where=str(where), expected=pinned, got=got)
        raise MismatchError.of([finding])
    return manifests.load(text, where=str(where))


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
    return OpenFile(path, descriptor, len(header), status.st_size, layout.tensors, _state(status))


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
