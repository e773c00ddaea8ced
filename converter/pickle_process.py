"""Asking a process of its own what a pickle holds; all that it answers is checked by who asked."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from converter import strict_json
from converter.errors import ConverterError, ExecutionError, SourceError
from converter.pickle_child import Request
from converter.signals import check
from converter.typed_json import (
    WrongJsonError,
    mapping,
    members,
    one_of,
    record,
    sequence,
    size,
    text,
)

MAX_ANSWER_BYTES = 64 << 20
START_SECONDS = 120  # to import torch, from a slow disk
_LOOK_SECONDS = 0.2  # how soon it is seen that this process was asked to end

_PACKAGES = Path(__file__).resolve().parent.parent
# What a library needs to be found; nothing that a user may keep secret.
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
_LIMITS = ("cpu", "files", "processes", "core", "written", "memory")
_CODE = re.compile(r"[a-z][a-z-]{0,40}")
_TEXT_CHARS = 400
_NOT_OF_THE_FILE = ("torch", "io")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What the process gave up: the network, and what is limited."""

    network: bool
    limits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as the pickle has it: strides and offset in elements, of a storage by its number.

    ``path`` is the keys of the nested dicts, from the top; ``storage_bytes`` what the pickle says
    of the storage, where that is known.
    """

    path: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    storage: int
    storage_bytes: int | None


@dataclass(frozen=True, slots=True)
class Other:
    """Something that is no plain tensor."""

    path: tuple[str, ...]
    what: str


@dataclass(frozen=True, slots=True)
class Spooled:
    """Where the values of a storage lie in the spool, in bytes."""

    storage: int
    begin: int
    size: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the process said."""

    sandbox: Sandbox
    tensors: tuple[View, ...]
    others: tuple[Other, ...]
    spooled: tuple[Spooled, ...] = ()


_READ_SANDBOX = record(
    Sandbox, network=lambda value: value is True, limits=sequence(one_of(_LIMITS))
)
_READ_ANSWER = record(
    Answer,
    optional=("spooled",),
    sandbox=_READ_SANDBOX,
    tensors=sequence(
        record(
            View,
            path=sequence(text),
            dtype=text,
            shape=sequence(size),
            strides=sequence(size),
            offset=size,
            storage=size,
            storage_bytes=lambda value: None if value is None else size(value),
        )
    ),
    others=sequence(record(Other, path=sequence(text), what=text)),
    spooled=sequence(record(Spooled, storage=size, begin=size, size=size)),
)


def ask(file: IO[bytes] | int, request: Request, *, where: str) -> Answer:
    """Have a new process read the pickle in ``file``, and return what it says.

    Raises SourceError when it refuses the file, when it ends without an answer, or when its answer
    is none; ExecutionError when it cannot run here.
    """
    data, ending = _run(file, request)
    if data:
        return read_answer(data, where=where)
    raise SourceError(
        "the process that reads the pickle ended without an answer",
        code="pickle-process",
        where=where,
        expected="a checkpoint as torch.save writes it",
        got=ending,
    )


def read_answer(data: bytes, *, where: str) -> Answer:
    """Read an answer. Raises the refusal that it is, and SourceError when it is none."""
    try:
        if len(data) > MAX_ANSWER_BYTES:
            raise WrongJsonError(f"at most {MAX_ANSWER_BYTES:,} bytes", "more")
        document = members(strict_json.parse(data, where=where))
        if "refused" in document:
            raise _refusal(mapping(text)(document["refused"]), where)
        return _READ_ANSWER(document)
    except WrongJsonError as flaw:
        raise SourceError(
            "the process that reads the pickle gave no answer that can be used",
            code="pickle-process",
            where=where,
            expected=flaw.expected,
            got=flaw.got,
        ) from flaw


def environment() -> dict[str, str]:
    """Return the variables that the process gets."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, **_ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""}


def _command(request: Request) -> Sequence[str]:
    """Return the command line; the process finds modules where this one does."""
    path = [folder for folder in sys.path if os.path.isabs(folder)]
    start = (
        f"import sys; sys.path[:] = {[*path, str(_PACKAGES)]!r}; "
        "from converter.pickle_child import main; main()"
    )
    return [sys.executable, "-I", "-c", start, json.dumps(asdict(request))]


def _run(file: IO[bytes] | int, request: Request) -> tuple[bytes, str]:
    """Return what the process wrote, of a few bytes more than it may, and how it ended."""
    try:
        process = subprocess.Popen(
            _command(request),
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            cwd=os.path.abspath(os.sep),
            start_new_session=True,
        )
    except OSError as error:
        what = f"no process can be started to read the pickle: {error.strerror}"
        raise ExecutionError(what, code="pickle-process", where=error.filename) from error
    assert process.stdout is not None
    seconds = START_SECONDS + 2 * request.cpu_seconds
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        with process.stdout as out:
            while os.name == "posix" and not select.select([out], [], [], _LOOK_SECONDS)[0]:
                check()
            data = out.read(MAX_ANSWER_BYTES + 1)
    finally:
        late = not timer.is_alive()
        timer.cancel()
        process.kill()
        process.wait()
    return data, f"more than {seconds} seconds" if late else _ending(process.returncode)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in {*signal.Signals} else str(-code)
    return f"signal {name}"


def _refusal(fields: Mapping[str, str], where: str) -> ConverterError:
    """Return the error that the process told of; its words may be a stranger's."""
    kind = ExecutionError if fields.get("code") in _NOT_OF_THE_FILE else SourceError
    said = {slot: text[:_TEXT_CHARS] for slot, text in fields.items()}
    code = said.get("code", "")
    return kind(
        said.get("what", "refused"),
        code=code if _CODE.fullmatch(code) else "pickle",
        where=where,
        tensor=said.get("tensor"),
        expected=said.get("expected"),
        got=said.get("got"),
        hint=said.get("hint"),
    )
