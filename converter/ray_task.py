"""What a worker of a cluster does: one output file of a plan, or the digest of one source file.

Nothing here knows the engine. A task reads the source and writes its file by path, on a file
system that all machines share, and answers with a record of what it made, or with why not: an
error that is raised would come back wrapped in another.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from uuid import uuid4

from converter import __version__
from converter.digest import GivenUp, never
from converter.errors import ConverterError, ExecutionError, SourceError, ValueRefusedError
from converter.finding import Finding
from converter.manifest import FileRecord
from converter.plan import Plan
from converter.positional import WriteBuffer
from converter.progress import unheard
from converter.shards import Shards, write_shards
from converter.source import Source, SourceFile, open_again
from converter.spec import Header, TensorSpec
from converter.write import io_errors

P = ParamSpec("P")
T = TypeVar("T")

_SHARED = "every machine of the cluster needs it at the same path, on a file system that they share"


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A source file as the machine sees it where the conversion began: its size, and when it last
    changed, in whole seconds, since not all file systems keep more.
    """

    file: SourceFile
    changed: int

    def __str__(self) -> str:
        time = datetime.fromtimestamp(self.changed, UTC).isoformat(" ")
        return f"{self.file.size_bytes:,} bytes, last changed {time}"


@dataclass(frozen=True, slots=True)
class Home:
    """Where a conversion began: the name of the machine, and what it runs by package."""

    machine: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a conversion that is made by itself.

    ``plan`` has at most one output file, ``header`` and ``files`` hold what it reads.
    """

    plan: Plan
    header: Header
    files: tuple[SeenFile, ...]
    directory: Path
    jobs: int


@dataclass(frozen=True, slots=True)
class Made:
    """The output file of a part, in a ``folder`` of its own below the part's directory."""

    shards: Shards
    folder: Path


def here() -> Home:
    """Return this machine, and what it runs, with which workers must agree."""
    return Home(platform.node(), _versions())


def see(file: SourceFile) -> SeenFile:
    """Look at a source file. Raises SourceError when it is not there."""
    path = file.path.absolute()
    try:
        status = path.stat()
    except OSError as error:
        what = f"the file cannot be read: {error.strerror}"
        raise SourceError(what, code="unreadable", where=str(path)) from error
    seen = replace(file, path=path, size_bytes=status.st_size)
    return SeenFile(seen, int(status.st_mtime))


def _answers(
    task: Callable[Concatenate[Home, P], T],
) -> Callable[Concatenate[Home, P], T | ConverterError]:
    """Return ``task``, so that it returns the errors that it would raise, and says where."""

    @wraps(task)
    def answer(home: Home, /, *args: P.args, **kwargs: P.kwargs) -> T | ConverterError:
        try:
            _require_versions(home)
            return task(home, *args, **kwargs)
        except ValueRefusedError as error:  # which is so on every machine
            return type(error).of(error.findings)
        except ConverterError as error:
            return type(error).of([_seen_from_here(home, finding) for finding in error.findings])

    return answer


@_answers
def make_part(home: Home, /, part: Part) -> Made:
    """Make a part of a conversion; a task that is tried again begins anew.

    Returns SourceError, ExecutionError and ValueRefusedError.
    """
    with ExitStack() as stack:
        source = stack.enter_context(SharedFiles(part.files))
        _require_header(part, source)
        folder = part.directory
        if part.plan.shards:
            folder = _own_folder(part)
        shards = write_shards(part.plan, source, folder, jobs=part.jobs, progress=unheard)
        source.check_unchanged()
    return Made(shards, folder)


@_answers
def digest_file(home: Home, /, file: SeenFile) -> FileRecord:
    """Return the record of a source file. Returns SourceError."""
    with SharedFiles((file,)) as source:
        digest = source.sha256(source.files[0])
        source.check_unchanged()
    return FileRecord(file.file.name, file.file.size_bytes, digest)


class SharedFiles(Source):
    """Source files of which each was opened somewhere else before, as one ``Source``.

    Raises SourceError unless they are the files that were seen there.
    """

    def __init__(self, seen: Iterable[SeenFile]) -> None:
        self._holders: dict[str, Source] = {}
        header: dict[str, TensorSpec] = {}
        with ExitStack() as stack:
            opened = []
            for file in seen:
                source = stack.enter_context(open_again(file.file))
                _require_same(file, see(source.files[0]))
                header.update(source.header)
                self._holders.update(dict.fromkeys(source.header, source))
                opened.append(source)
            self._stack = stack.pop_all()
        self._opened = opened
        self.header = header
        self.metadata = {}
        self.files = tuple(file for source in opened for file in source.files)

    def read(self, name: str) -> bytearray:
        """Return exactly the bytes of a tensor; raises SourceError."""
        return self._holders[name].read(name)

    def read_into(self, name: str, buffer: WriteBuffer, begin: int = 0) -> None:
        """Fill ``buffer`` with the bytes of a tensor from its byte ``begin`` on."""
        self._holders[name].read_into(name, buffer, begin)

    def sha256(self, file: SourceFile, given_up: GivenUp = never) -> str:
        """Return the digest of one of the files."""
        return self._opened[self.files.index(file)].sha256(file, given_up)

    def check_unchanged(self) -> None:
        """Raise SourceError if a file was written to since it was opened."""
        for source in self._opened:
            source.check_unchanged()

    def close(self) -> None:
        """Close all files."""
        self._stack.close()


def _require_versions(home: Home) -> None:
    found = _versions()
    findings = [
        Finding(
            "version",
            f"a worker runs another {package} than the conversion was begun with",
            expected=wanted,
            got=found[package],
            hint="the bytes may differ; install the same versions on every machine of the cluster",
        )
        for package, wanted in home.versions.items()
        if found[package] != wanted
    ]
    if findings:
        raise ExecutionError.of(findings)


def _versions() -> dict[str, str]:
    """Return the versions of what decides about bytes, by package."""
    try:
        numpy = version("numpy")
    except PackageNotFoundError:
        numpy = "none"
    return {"checkpoint-converter": __version__, "numpy": numpy}


def _require_same(expected: SeenFile, got: SeenFile) -> None:
    if str(expected) != str(got):
        raise _another(expected, str(got))


def _require_header(part: Part, source: Source) -> None:
    for name, spec in part.header.items():
        if source.header.get(name) != spec:
            raise _another(part.files[0], f"{name}: {source.header.get(name, 'absent')}")


def _another(expected: SeenFile, got: str) -> SourceError:
    return SourceError(
        "not the file that the conversion was begun with",
        code="changed",
        where=str(expected.file.path),
        expected=str(expected),
        got=got,
        hint=f"{_SHARED}; and nothing may write to it meanwhile",
    )


def _own_folder(part: Part) -> Path:
    """Make a folder for the file of a part; what an attempt left that was killed is removed.

    Whoever is thought dead and is not, then, never writes to the file that counts.
    """
    name = part.plan.shards[0].file
    if not part.directory.is_dir():
        raise ExecutionError(
            "the directory in which the conversion is made is not there",
            code="io",
            where=str(part.directory),
            hint=_SHARED,
        )
    for left in part.directory.glob(f"{name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = part.directory / f"{name}.{uuid4().hex}"
    with io_errors(folder):
        folder.mkdir()
    return folder


def _seen_from_here(home: Home, finding: Finding) -> Finding:
    machine = platform.node()
    if machine == home.machine:
        return finding
    where = f"{finding.where} on {machine}" if finding.where else machine
    return replace(finding, where=where, hint=finding.hint or _SHARED)
