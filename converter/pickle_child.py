"""What runs in a process of its own to read a pickle: it says what lies in it, and no more.

Standard input is the file to read, the one argument is a ``Request`` as JSON, and standard output
is JSON: every tensor by its dotted name, where its values lie, and what else there is; or why the
file is refused. Nobody has to trust what it says: who asked checks every range against the file.
Before it looks at the file it gives up what it can: the network, new files, other processes, memory
and time without bound.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from converter import pickle_scan
from converter.errors import ConverterError, ExecutionError, SourceError

OLDEST_TORCH = (2, 10)  # before it, the restricted loader could be made to run code

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_GOT_CHARS = 300


@dataclass(frozen=True, slots=True)
class Request:
    """How a file is read: what it may take, and where the values of an old one are put.

    An archive has its pickle from ``pickle_begin`` on, and no values. Of a file of the old layout,
    the values of tensors below ``unwrap`` are put at ``spool``, in ``spool_bytes`` at most.
    """

    cpu_seconds: int
    memory_bytes: int
    pickle_begin: int = 0
    pickle_bytes: int = 0
    spool: str | None = None
    spool_bytes: int = 0
    unwrap: str = ""


def main() -> None:
    """Answer on standard output, whatever happens."""
    answer_fd = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing that a library prints is an answer
    sandbox: dict[str, Any] = {"network": False, "limits": []}
    told = answer(lambda: _read_confined(Request(**json.loads(sys.argv[1])), sandbox))
    with open(answer_fd, "wb") as out:
        out.write(json.dumps({"sandbox": sandbox, **told}, ensure_ascii=True).encode("ascii"))


def answer(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what ``read`` returns or, when it raises, why the file is refused."""
    try:
        return read()
    except ConverterError as error:
        return {"refused": error.findings[0].as_json()}
    except MemoryError:
        return {"refused": _too_much_memory()}
    except Exception as error:
        return {"refused": _explain(error)}


def reader(request: Request) -> Callable[[IO[bytes]], dict[str, Any]]:
    """Return what reads a file; all that it needs is imported and open. Raises ExecutionError."""
    _check_torch()
    from converter import pickle_describe

    if request.spool is None:
        archives = pickle_describe.archive_loader()

        def read_archive(file: IO[bytes]) -> dict[str, Any]:
            data = file.read()
            pickle = data[request.pickle_begin :][: request.pickle_bytes]
            pickle_scan.check_pickle(io.BytesIO(pickle))
            return pickle_describe.describe_archive(archives, io.BytesIO(data))

        return read_archive
    streams = pickle_describe.stream_loader()
    spool = open(request.spool, "xb", buffering=0)  # noqa: SIM115

    def read_stream(file: IO[bytes]) -> dict[str, Any]:
        with spool:
            pickle_scan.check_stream(file)
            file.seek(0)
            return pickle_describe.describe_stream(streams(file), spool, request.unwrap)

    return read_stream


def _read_confined(request: Request, sandbox: dict[str, Any]) -> dict[str, Any]:
    """Give up what can be given up, and only then read standard input."""
    sandbox["network"] = leave_network()
    warnings.simplefilter("ignore")
    read = reader(request)
    with open(0, "rb", closefd=False) as file:
        sandbox["limits"] = _limit(request)
        file.seek(0)
        return read(file)


def leave_network() -> bool:
    """Move into a network without any interface, where the system lets us; return if it did."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)  # not to outlive who asked
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return any(libc.unshare(f) == 0 for f in (_CLONE_NEWUSER | _CLONE_NEWNET, _CLONE_NEWNET))


def _check_torch() -> None:
    try:
        import torch
    except (ImportError, OSError) as error:
        what = f"torch cannot be imported: {error}"
        raise ExecutionError(what, code="torch", hint="pip install torch") from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
        raise ExecutionError(
            "this version of torch does not read pickles safely",
            code="torch",
            expected=".".join(map(str, OLDEST_TORCH)) + " or later",
            got=str(torch.__version__),
            hint="pip install --upgrade torch",
        )


def _limit(request: Request) -> list[str]:
    """Bound what this process may take from here on; return the limits that hold."""
    try:
        import resource
    except ImportError:
        return []
    # A socket is a file too, so that none can be opened even where the network is still there.
    limits = {
        "cpu": ("RLIMIT_CPU", request.cpu_seconds),
        "files": ("RLIMIT_NOFILE", 0),
        "processes": ("RLIMIT_NPROC", 0),
        "core": ("RLIMIT_CORE", 0),
        "written": ("RLIMIT_FSIZE", request.spool_bytes),
    }
    if (mapped := _mapped_bytes()) is not None:
        limits["memory"] = ("RLIMIT_AS", mapped + request.memory_bytes)
    held = []
    for name, (limit, value) in limits.items():
        try:
            resource.setrlimit(getattr(resource, limit), (value, value))
        except (AttributeError, ValueError, OSError):
            continue
        held.append(name)
    return held


def _mapped_bytes() -> int | None:
    """Return the size of this process's address space, most of which is torch; Linux tells."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _explain(error: Exception) -> dict[str, str]:
    """Return the refusal of what torch could not load, whose messages are not for people."""
    text = " ".join(str(error).split())
    if "allocate memory" in text:
        return _too_much_memory()
    return (
        SourceError(
            "torch's restricted loader does not take it",
            code="pickle",
            expected="a checkpoint as torch.save writes it",
            got=f"{type(error).__name__}: {text}"[:_GOT_CHARS],
        )
        .findings[0]
        .as_json()
    )


def _too_much_memory() -> dict[str, str]:
    what = "reading the pickle takes more memory than it may"
    return SourceError(what, code="pickle-memory").findings[0].as_json()
