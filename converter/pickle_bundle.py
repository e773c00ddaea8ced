"""Importing what a pipeline is published as: its pickles become safetensors, the rest is copied."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from converter.bundle_members import raise_all
from converter.errors import ConverterError, SourceError
from converter.finding import Finding
from converter.manifest import FileRecord
from converter.pickle_import import (
    Imported,
    Notice,
    Opened,
    opened_checkpoint,
    opened_file,
    work_bytes,
    write_import,
)
from converter.positional import write_at
from converter.progress import Progress
from converter.publish import DIRECTORY_MODE, Staging, check_space, sync_directory
from converter.rules.bundle_file import BundleFile, Original
from converter.source import open_source
from converter.source.regular_file import RegularFile
from converter.source.sharded import INDEX_SUFFIX
from converter.write import io_errors
from converter.write_disk import FILE_MODE

Files: TypeAlias = tuple[RegularFile, ...]

_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class ImportedBundle:
    """What was made of the originals of a bundle: imported or copied, by source."""

    bundle_file: BundleFile
    out: Path
    imported: Mapping[str, Imported]
    copied: Mapping[str, tuple[FileRecord, ...]]
    warnings: tuple[Finding, ...]
    seconds: float


def import_bundle(
    bundle_file: BundleFile, folder: Path, out: Path, *, progress: Progress, notice: Notice
) -> ImportedBundle:
    """Write every source of a bundle below ``out``, from the originals in ``folder``, or nothing.

    ``notice`` is told what costs more than a user may expect, before it does. Raises SourceError
    with what is wrong with all of the originals, and ExecutionError.
    """
    begun = time.monotonic()
    with Staging(out) as staging:
        with ExitStack() as stack:
            found = _look(bundle_file, folder, staging.path, stack, notice)
            imported, copied = _carry_out(bundle_file, found, folder, staging, progress)
        _sync_below(staging.path)
        staging.publish()
    warnings = tuple(
        replace(warning, where=name) for name, one in imported.items() for warning in one.warnings
    )
    seconds = time.monotonic() - begun
    return ImportedBundle(bundle_file, out, imported, copied, warnings, seconds)


def _look(
    bundle_file: BundleFile, folder: Path, staged: Path, stack: ExitStack, notice: Notice
) -> dict[str, Opened | Files]:
    """Look at all originals; return a checkpoint to import or the files to copy, by source."""
    found: dict[str, Opened | Files] = {}
    errors: list[ConverterError] = []
    for name, source in bundle_file.sources.items():
        try:
            if source.original is None:
                found[name] = _open_files(folder / source.file, stack)
            else:
                spool = staged / f".{name}.spool"
                found[name] = _open(source.original, folder, spool, stack, notice)
        except ConverterError as error:
            errors.append(error)
    if errors:
        raise_all(errors)
    return found


def _open(
    original: Original, folder: Path, spool: Path, stack: ExitStack, notice: Notice
) -> Opened:
    file = stack.enter_context(opened_file(folder / original.file))
    return stack.enter_context(
        opened_checkpoint(file, spool, unwrap=original.unwrap, bare=original.bare, notice=notice)
    )


def _open_files(path: Path, stack: ExitStack) -> Files:
    """Open the files of a checkpoint of safetensors, its index included. Raises SourceError."""
    with open_source(path) as source:
        paths = [file.path for file in source.files]
    if not paths:
        what = "a header alone has no values to copy"
        raise SourceError(what, code="header-only", where=str(path))
    if os.path.isdir(path):
        paths += sorted(path.glob(f"[!.]*{INDEX_SUFFIX}"))
    elif path not in paths:
        paths.append(path)
    files = []
    for one in paths:
        files.append(RegularFile(one))
        stack.callback(files[-1].close)
    return tuple(files)


def _carry_out(
    bundle_file: BundleFile,
    found: Mapping[str, Opened | Files],
    folder: Path,
    staging: Staging,
    progress: Progress,
) -> tuple[dict[str, Imported], dict[str, tuple[FileRecord, ...]]]:
    sizes = {name: _size_bytes(one) for name, one in found.items()}
    check_space(staging.out, sum(size for size, _ in sizes.values()))
    total = sum(work for _, work in sizes.values())

    def advance(done: int, _: int) -> None:
        progress(done, total)

    imported: dict[str, Imported] = {}
    copied: dict[str, tuple[FileRecord, ...]] = {}
    for name, one in found.items():
        file = bundle_file.sources[name].file
        if isinstance(one, Opened):
            _make_room(staging.path, file)
            staged = staging.path / file
            imported[name] = write_import(one, staged, staging.out / file, advance)
        else:
            copied[name] = tuple(_copy(part, folder, staging.path, advance) for part in one)
            with open_source(staging.path / file):
                pass  # the very copy holds what its headers say
    return imported, copied


def _size_bytes(found: Opened | Files) -> tuple[int, int]:
    """Return the bytes that are written for a source, and those that progress counts."""
    if isinstance(found, Opened):
        return found.selection.size_bytes, work_bytes(found)
    size = sum(file.size_bytes for file in found)
    return size, size


def _copy(file: RegularFile, folder: Path, staged: Path, progress: Progress) -> FileRecord:
    """Copy a file to where it lay below ``folder``; it is on disk when this returns."""
    name = file.path.relative_to(folder).as_posix()
    _make_room(staged, name)
    target = staged / name
    whole = hashlib.sha256()
    with io_errors(target), open(target, "xb", buffering=0) as out:
        target.chmod(FILE_MODE)
        for position in range(0, file.size_bytes, _BLOCK_BYTES):
            block = file.read(position, min(_BLOCK_BYTES, file.size_bytes - position))
            write_at(out.fileno(), block, position)
            whole.update(block)
            progress(len(block), file.size_bytes)
        os.fsync(out.fileno())
    file.check_unchanged()
    return FileRecord(name, file.size_bytes, whole.hexdigest())


def _make_room(staged: Path, name: str) -> None:
    """Make the folders that a file is to lie in."""
    folder = staged
    for part in Path(name).parts[:-1]:
        folder /= part
        with io_errors(folder):
            if not folder.is_dir():
                folder.mkdir()
                folder.chmod(DIRECTORY_MODE)


def _sync_below(staged: Path) -> None:
    with io_errors(staged):
        for folder, _, _ in os.walk(staged, topdown=False):
            sync_directory(Path(folder))
