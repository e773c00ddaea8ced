"""The quarantine: pickles become safetensors here, and are read nowhere else.

An archive is checked by its directory; a process of its own reads the pickle in it, without values
and with nothing to lose; what it says is checked against the directory; then values are copied by
position. A file of the layout before torch 1.6 has no directory: the process reads it whole, and
puts the values into a file from which they are copied alike.
"""

from __future__ import annotations

import math
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal, TypeAlias

from converter.canonical import arrange
from converter.errors import SourceError, UsageError
from converter.finding import Finding
from converter.fold import fold_names
from converter.manifest import FileRecord
from converter.pickle_archive import Archive, Member, check_crc32, is_archive, read_archive
from converter.pickle_child import Request
from converter.pickle_copy import copy
from converter.pickle_process import Answer, Sandbox, ask
from converter.pickle_select import Selection, Shared, select
from converter.progress import Progress
from converter.publish_file import StagedFile
from converter.source.regular_file import RegularFile
from converter.write import WeightsFile, io_errors
from converter.write_blocks import BlockMemory

Layout: TypeAlias = Literal["archive", "stream"]
# Told at once, before the work that it is about.
Notice: TypeAlias = Callable[[Finding], None]

SUFFIX = ".safetensors"
METADATA = {"format": "pt"}
MAX_STREAM_BYTES = 1 << 40

_MIB = 1 << 20
_SPARE_BYTES = 512 * _MIB
_PICKLE_GROWTH = 24  # a pickle of small values becomes so much larger as objects
_CPU_SECONDS = 60
_PICKLE_BYTES_PER_SECOND = _MIB // 8
_STREAM_BYTES_PER_SECOND = 20 * _MIB
_FOLDER = "archive/"  # of the archive that the process gets; torch takes any
_SINGLED_OUT = 20
_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")  # the number with which the old layout begins
_HEAD_BYTES = 32


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint that was looked at whole: all that is left to do is to copy values.

    ``values`` is the file in which the storages lie.
    """

    file: RegularFile
    layout: Layout
    sandbox: Sandbox
    values: RegularFile
    storages: Mapping[int, Member]
    selection: Selection


@dataclass(frozen=True, slots=True)
class Imported:
    """What was made of one checkpoint."""

    source: FileRecord
    layout: Layout
    sandbox: Sandbox
    selection: Selection
    out: Path
    target: FileRecord
    warnings: tuple[Finding, ...]
    seconds: float


def import_file(
    source: Path,
    out: Path,
    *,
    unwrap: str,
    overwrite: bool,
    progress: Progress,
    notice: Notice,
) -> Imported:
    """Write the tensors of the checkpoint at ``source``, below ``unwrap``, to the file ``out``.

    ``notice`` is told what costs more than a user may expect, before it does. Raises UsageError,
    SourceError and ExecutionError.
    """
    begun = time.monotonic()
    if out.suffix != SUFFIX:
        expected = f"a file name that ends in {SUFFIX}"
        raise UsageError("not a name for the target", expected=expected, got=str(out))
    with ExitStack() as stack:
        file = stack.enter_context(opened_file(source))
        staged = stack.enter_context(StagedFile(out, overwrite=overwrite))
        opened = stack.enter_context(
            opened_checkpoint(file, staged.spool, unwrap=unwrap, bare=False, notice=notice)
        )
        staged.require_space(opened.selection.size_bytes)
        imported = write_import(opened, staged.path, out, progress)
        staged.publish()
    return replace(imported, seconds=time.monotonic() - begun)


@contextmanager
def opened_file(path: Path) -> Iterator[RegularFile]:
    """Open a file that may be a checkpoint of torch. Raises SourceError."""
    if path.suffix == SUFFIX:
        hint = "it is no pickle: convert takes it as it is"
        raise SourceError("nothing to import", code="kind", where=str(path), hint=hint)
    file = RegularFile(path)
    try:
        yield file
    finally:
        file.close()


@contextmanager
def opened_checkpoint(
    file: RegularFile, spool: Path, *, unwrap: str, bare: bool, notice: Notice
) -> Iterator[Opened]:
    """Look at all that a checkpoint holds but the values, and choose the tensors below ``unwrap``.

    ``bare`` allows that they lie at the top instead. The values of a file of the old layout are put
    at ``spool``, which is gone afterwards. Raises SourceError and ExecutionError.
    """
    where = str(file.path)
    with ExitStack() as stack:
        values = file
        if is_archive(file):
            answer, storages = _read_archive(file)
        else:
            stack.callback(spool.unlink, missing_ok=True)
            answer = _read_stream(file, spool, "" if bare else unwrap, notice)
            values = RegularFile(spool)
            stack.callback(values.close)
            storages = _spooled(answer, values, where)
        yield Opened(
            file=file,
            layout="archive" if values is file else "stream",
            sandbox=answer.sandbox,
            values=values,
            storages=storages,
            selection=select(answer, storages, unwrap=unwrap, bare=bare, where=where),
        )


def write_import(opened: Opened, staged: Path, out: Path, progress: Progress) -> Imported:
    """Write what was chosen to the file ``staged``, which will be ``out``, and say what was done.

    Raises SourceError for values that are damaged or that changed meanwhile, and ExecutionError.
    """
    begun = time.monotonic()
    target = _write_tensors(opened, staged, progress)
    where = str(opened.file.path)
    source = FileRecord(opened.file.path.name, opened.file.size_bytes, opened.file.sha256())
    opened.file.check_unchanged()
    return Imported(
        source=source,
        layout=opened.layout,
        sandbox=opened.sandbox,
        selection=opened.selection,
        out=out,
        target=replace(target, name=out.name),
        warnings=tuple(_shared_findings(opened.selection.shared, where)),
        seconds=time.monotonic() - begun,
    )


def work_bytes(opened: Opened) -> int:
    """Return the bytes that are read to check storages and written, which progress counts."""
    checked = _checked(opened).values()
    return opened.selection.size_bytes + sum(member.size_bytes for member in checked)


def _checked(opened: Opened) -> dict[int, Member]:
    """Return the storages in use that can be checked."""
    used = dict.fromkeys(piece.storage for piece in opened.selection.pieces)
    storages = {number: opened.storages[number] for number in used}
    return {number: m for number, m in storages.items() if m.crc32 is not None}


def _write_tensors(opened: Opened, path: Path, progress: Progress) -> FileRecord:
    """Copy the chosen tensors into a new safetensors file, on disk when this returns.

    Storages are read twice, to check them and to copy them.
    """
    pieces = sorted(opened.selection.pieces, key=lambda piece: (piece.begin, piece.name))
    placements = arrange((piece.name, piece.spec) for piece in opened.selection.pieces)
    begins = {placement.name: placement.begin for placement in placements}
    unchecked = _checked(opened)
    total = work_bytes(opened)
    with BlockMemory() as memory, WeightsFile(path, placements, memory, METADATA) as target:
        for piece in pieces:
            if (member := unchecked.pop(piece.storage, None)) is not None:
                for done in check_crc32(opened.values, member):
                    progress(done, total)
            for done in copy(opened.values, piece, target.write, to=begins[piece.name]):
                progress(done, total)
        return FileRecord(path.name, target.size_bytes, target.sha256())


def _shared_findings(shared: tuple[Shared, ...], where: str) -> Iterator[Finding]:
    """Yield a warning for each group of tensors that share storage; of very many, one for all."""
    if len(shared) > _SINGLED_OUT:
        names = tuple(name for group in shared for name in group.names)
        stored = sum(group.stored_bytes for group in shared)
        shared = (Shared(names, stored, sum(group.written_bytes for group in shared)),)
    for group in shared:
        yield Finding(
            "shared",
            "tensors share storage; each of them is written in full",
            where=where,
            tensor=", ".join(fold_names(group.names)),
            got=f"{group.written_bytes:,} bytes, for {group.stored_bytes:,} in the source",
            severity="warning",
        )


def _read_archive(file: RegularFile) -> tuple[Answer, Mapping[int, Member]]:
    """Return what the pickle of an archive says, and the storages by the numbers that it uses."""
    archive = read_archive(file)
    for _ in check_crc32(file, archive.pickle):
        pass
    with io_errors(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as bones:
        request, storages = _write_bones(bones, file, archive)
        bones.flush()
        return ask(bones, request, where=str(file.path)), storages


def _write_bones(
    bones: IO[bytes], file: RegularFile, archive: Archive
) -> tuple[Request, Mapping[int, Member]]:
    """Write the archive anew without its values; return where in it each storage would begin."""
    size = archive.pickle.size_bytes
    pickle = bytes(file.read(archive.pickle.begin, size))
    with zipfile.ZipFile(bones, "w") as made:

        def add(name: str, data: bytes) -> int:
            info = zipfile.ZipInfo(_FOLDER + name)
            made.writestr(info, data)
            return info.header_offset + len(info.FileHeader())

        begin = add("data.pkl", pickle)
        add("version", b"3\n")
        add("byteorder", b"little")
        storages = {add(f"data/{key}", b""): m for key, m in archive.storages.items()}
    request = Request(
        cpu_seconds=_CPU_SECONDS + math.ceil(size / _PICKLE_BYTES_PER_SECOND),
        memory_bytes=_SPARE_BYTES + _PICKLE_GROWTH * size,
        pickle_begin=begin,
        pickle_bytes=size,
    )
    return request, storages


def _read_stream(file: RegularFile, spool: Path, unwrap: str, notice: Notice) -> Answer:
    """Return what a file of the old layout says, once its values are at ``spool``."""
    size = file.size_bytes
    if size > MAX_STREAM_BYTES:
        raise SourceError("too large a file", code="pickle", where=str(file.path))
    if _MAGIC in bytes(file.read(0, min(_HEAD_BYTES, size))):
        notice(
            Finding(
                "whole-in-memory",
                "the file has the layout of torch before 1.6: it is read into memory whole",
                where=str(file.path),
                got=f"{size:,} bytes",
                severity="warning",
            )
        )
    request = Request(
        cpu_seconds=_CPU_SECONDS + math.ceil(size / _STREAM_BYTES_PER_SECOND),
        memory_bytes=_SPARE_BYTES + size,
        spool=str(spool),
        spool_bytes=size,
        unwrap=unwrap,
    )
    return ask(file.fileno(), request, where=str(file.path))


def _spooled(answer: Answer, values: RegularFile, where: str) -> Mapping[int, Member]:
    """Return the storages that the process put into a file, if they can be what it says."""
    storages = {}
    end = 0
    for spooled in answer.spooled:
        if spooled.begin != end:
            break
        end += spooled.size
        name = f"storage {spooled.storage}"
        storages[spooled.storage] = Member(name, spooled.begin, end, crc32=None)
    if end != values.size_bytes or len(storages) != len(answer.spooled):
        what = "the process that reads the pickle did not write what it says"
        raise SourceError(what, code="pickle-process", where=where)
    return storages
