"""A file that appears at once: staged beside its target under a lock, then renamed.

After a crash, a full disk or a kill the target is absent, or the old one, or the new one, complete.
What a killed run leaves beside it (``.NAME.lock``, ``.NAME.partial``, ``.NAME.spool``) is cleaned
up by the next.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from converter.errors import ExecutionError, UsageError
from converter.publish import check_space, claimed, sync_directory
from converter.signals import held_back
from converter.write import io_errors


class StagedFile:
    """A file at ``path`` which ``publish`` puts at ``out``, and a ``spool`` for what is on the way.

    As a context manager it takes the lock, removes what killed runs left, and checks the target
    before any work is done. Missing parents of ``out`` are made. Leaving it without having
    published, for whatever reason, leaves nothing behind. Meanwhile, signals that ask to end raise
    at a ``signals.check``. Raises ExecutionError.
    """

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        with io_errors(out):
            self.out = Path(os.path.realpath(out.parent), out.name)
        self.path = self.out.with_name(f".{self.out.name}.partial")
        self.spool = self.out.with_name(f".{self.out.name}.spool")
        self._overwrite = overwrite
        self._claim = claimed(self.out, self._prepare)

    def __enter__(self) -> Self:
        self._claim.__enter__()
        return self

    def _prepare(self, stack: ExitStack) -> None:
        for path in (self.path, self.spool):
            path.unlink(missing_ok=True)
            stack.callback(path.unlink, missing_ok=True)
        self._check_target()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._claim.__exit__(kind, error, traceback)

    def require_space(self, size_bytes: int) -> None:
        """Raise ExecutionError if the disk of the target has not that many bytes left."""
        check_space(self.out, size_bytes)

    def publish(self) -> None:
        """Put the file at ``out`` in one atomic step; it is on disk already.

        Raises ExecutionError; if that comes from the very last sync, it is in place all the same.
        """
        with held_back(), io_errors(self.out):
            self._check_target()
            os.replace(self.path, self.out)
            sync_directory(self.out.parent)

    def _check_target(self) -> None:
        require_replaceable(self.out, overwrite=self._overwrite)


def require_outside(out: Path, directory: Path) -> None:
    """Raise UsageError if ``out`` would lie in the canonical ``directory`` that it is made from."""
    place = Path(os.path.realpath(out.parent), out.name)
    if place.is_relative_to(os.path.realpath(directory)):
        raise UsageError(
            "the file would lie in the directory that it is made from",
            expected="a file elsewhere",
            got=str(out),
            hint="a canonical directory holds nothing but what its manifest lists",
        )


def require_replaceable(out: Path, *, overwrite: bool) -> None:
    """Raise ExecutionError if there is something at ``out`` that may not be replaced."""
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_file():
        what = "the target is a directory or a link, which is never overwritten"
        raise ExecutionError(what, code="exists", where=str(out))
    if not overwrite:
        raise ExecutionError(
            "the target exists",
            code="exists",
            where=str(out),
            hint="give --overwrite to replace it, or name another file",
        )
