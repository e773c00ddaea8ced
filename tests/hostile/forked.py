"""The command line as processes of their own, which begin at once: all is imported already.

As a program this forks a child for each run that it is asked for. A line of JSON is a list of
runs, which begin together; the answer is a line of JSON when all have ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its arguments, and what befalls it; times are seconds since all began."""

    arguments: tuple[str, ...]
    begin: float = 0.0
    signal: int = 0
    signal_at: float = 0.0
    max_file_bytes: int = 0
    obeys_modes: bool = False
    late_full_disk: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """How a run ended: exit code, or the number of the signal that killed it, negative."""

    status: int
    seconds: float
    stdout: str
    stderr: str


class Forks:
    """The program below, and a way to talk to it."""

    def __init__(self, process: subprocess.Popen[str], *, apart: bool) -> None:
        self.process = process
        self._apart = apart

    def seen(self, path: Path) -> Path:
        """Return where what the program finds at ``path`` is found from here."""
        return Path(f"/proc/{self.process.pid}/root", *path.parts[1:]) if self._apart else path

    def run(self, *arguments: str | Path, **befalls: Any) -> Done:
        """Run the command line once, to its end."""
        (done,) = self.together([Run(tuple(map(str, arguments)), **befalls)])
        return done

    def together(self, runs: Sequence[Run]) -> list[Done]:
        """Run the command line several times at once, all to their ends."""
        self.begin(runs)
        return self.end()

    def begin(self, runs: Sequence[Run]) -> None:
        """Let runs begin, and return at once."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([asdict(run) for run in runs]) + "\n")
        self.process.stdin.flush()

    def end(self) -> list[Done]:
        """Wait for the end of what was begun."""
        assert self.process.stdout is not None
        return [Done(**item) for item in json.loads(self.process.stdout.readline())]


@contextmanager
def forks(*before: str) -> Iterator[Forks]:
    """Start the program, with what stands ``before`` it on its command line."""
    command = [*before, sys.executable, __file__]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe) as process:
        yield Forks(process, apart=bool(before))
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def forks_among_mounts(*script: str) -> Iterator[Forks]:
    """Start the program where the lines of a shell ``script`` have mounted what only it sees.

    Skips the test where that is not allowed.
    """
    import pytest

    for more in ((), ("--map-root-user",)):
        apart = ("unshare", "--mount", *more, "sh", "-e", "-c")
        lines = "\n".join(script)
        try:
            tried = subprocess.run([*apart, lines], capture_output=True, check=False, text=True)
        except FileNotFoundError:
            pytest.skip("there is no unshare here")
        if tried.returncode == 0:
            with forks(*apart, f'{lines}\nexec "$0" "$@"') as program:
                yield program
            return
    pytest.skip(f"no mounts of one's own here: {tried.stderr.strip()}")


def _main() -> None:
    # What a conversion imports once it knows that it needs it.
    import converter.bundle
    import converter.conversion
    import converter.execute
    import converter.report
    import converter.report_bundle  # noqa: F401
    from converter.cli import main

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a command begins
    for line in sys.stdin:
        runs = [Run(**item) for item in json.loads(line)]
        began = time.monotonic()
        children = [_fork(run, main, began) for run in runs]
        timed = [(run.signal_at, child) for run, (child, *_) in zip(runs, children, strict=True)]
        for (at, child), run in sorted(zip(timed, runs, strict=True), key=lambda item: item[0]):
            if run.signal:
                time.sleep(max(0.0, began + at - time.monotonic()))
                os.kill(
                    child, run.signal
                )  # one that has ended is still there until it is waited for
        print(json.dumps([asdict(_wait(*child, began)) for child in children]), flush=True)


def _fork(run: Run, main: Any, began: float) -> tuple[int, IO[bytes], IO[bytes]]:
    stdout, stderr = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115
    child = os.fork()
    if child:
        return child, stdout, stderr
    code: object = 1
    try:
        os.dup2(stdout.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
        _befall(run)
        time.sleep(max(0.0, began + run.begin - time.monotonic()))
        main(run.arguments, prog_name="convert")
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _wait(child: int, stdout: IO[bytes], stderr: IO[bytes], began: float) -> Done:
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - began
    texts = []
    for stream in (stdout, stderr):
        with stream:
            stream.seek(0)
            texts.append(stream.read().decode(errors="backslashreplace"))
    return Done(os.waitstatus_to_exitcode(status), seconds, *texts)


def _befall(run: Run) -> None:
    import resource

    if run.max_file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (run.max_file_bytes, run.max_file_bytes))
    if run.obeys_modes:
        _obey_modes()
    if run.late_full_disk:
        _find_out_late()


def _obey_modes() -> None:
    """Give up what lets root write where modes forbid it, and all else that sets root apart."""
    version_3 = (ctypes.c_uint32 * 2)(0x20080522, 0)
    none = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(version_3, none):
        raise OSError(ctypes.get_errno(), "capset")


def _find_out_late() -> None:
    """Let no space be counted or reserved, so that a full disk is found by a write."""
    from converter import publish

    def reserve(fd: int, begin: int, size: int) -> None:
        raise OSError(95, "Operation not supported")

    os.posix_fallocate = reserve
    publish.check_space = lambda out, size_bytes: None


if __name__ == "__main__":
    _main()
