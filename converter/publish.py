"""A directory that appears at once: staged beside its target under a lock, then renamed.

After a crash, a full disk or a kill the target is absent, or the old one, or the new one, complete.
What a killed run leaves beside it (``.NAME.lock``, ``.NAME.partial``) is cleaned up by the next.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from converter.bundle_record import BUNDLE_NAME
from converter.canonical import FILE_NAME, MANIFEST_NAME, SIGNATURE_NAME, SUMS_NAME
from converter.errors import ExecutionError
from converter.positional import open_flags
from converter.signals import check, checked, held_back
from converter.write import io_errors, write_file

DIRECTORY_MODE = 0o755
_BUNDLE_FILES = frozenset({BUNDLE_NAME, SUMS_NAME, SIGNATURE_NAME})

_LISTED = 12


class Staging:
    """A directory at ``path`` in which files are made, and which ``publish`` puts at ``out``.

    As a context manager it takes the lock, removes what killed runs left, and checks all that can
    be checked before any work is done: the target, the space on its disk, and, for ``overwrite``,
    that directories can be exchanged there. Missing parents of ``out`` are made. Leaving it
    without having published, for whatever reason, leaves nothing behind. Meanwhile, signals that
    ask to end raise at a ``signals.check``, as all reading and writing by position is.

    Raises ExecutionError.
    """

    def __init__(self, out: Path, *, size_bytes: int = 0, overwrite: bool = False) -> None:
        self.out = _resolve(out)
        self.path = self.out.with_name(f".{self.out.name}.partial")
        self._size_bytes = size_bytes
        self._overwrite = overwrite
        self._claim = claimed(self.out, self._prepare)

    def __enter__(self) -> Self:
        self._claim.__enter__()
        return self

    def _prepare(self, stack: ExitStack) -> None:
        _remove(self.path)
        replaces = _check_target(self.out, self._overwrite)
        check_space(self.out, self._size_bytes)
        # The staged tree or, after an exchange, the old one; the next run removes what stays.
        stack.callback(shutil.rmtree, self.path, ignore_errors=True)
        self.path.mkdir(mode=0o700)
        self.path.chmod(0o700)  # whatever the umask
        if replaces:
            _check_exchange(self.path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._claim.__exit__(kind, error, traceback)

    def make_directory(self, name: str) -> Path:
        """Make a directory inside the staged one and return its path. Raises ExecutionError."""
        path = self.path / name
        with io_errors(path):
            path.mkdir()
            path.chmod(DIRECTORY_MODE)
        return path

    def publish(self) -> None:
        """Put the directory at ``out`` in one atomic step; its files are on disk already.

        The old tree, if there was one, is removed on leaving. Raises ExecutionError; if that comes
        from the very last sync, the new tree is in place all the same.
        """
        check()
        with held_back(), io_errors(self.out):
            self.path.chmod(DIRECTORY_MODE)
            for folder in (*filter(Path.is_dir, self.path.iterdir()), self.path):
                sync_directory(folder)
            if _check_target(self.out, self._overwrite):
                self._exchange()
            else:
                if os.name == "nt" and self.out.exists():
                    self.out.rmdir()  # only POSIX renames onto an empty directory
                self.path.rename(self.out)
            sync_directory(self.out.parent)

    def _exchange(self) -> None:
        exchange(self.path, self.out)
        try:
            _check_target(self.path, overwrite=True)  # what came into it at the very last is kept
        except ExecutionError:
            exchange(self.path, self.out)
            raise


@contextmanager
def claimed(out: Path, prepare: Callable[[ExitStack], None]) -> Iterator[None]:
    """Hold the lock of ``out``, whose missing parents are made, and call ``prepare``.

    What ``prepare`` leaves on its stack is called at the end, whatever happened, as is the removal
    of parents that stayed empty. Within, signals that ask to end raise at a ``signals.check``.
    ``out`` is spelled without links. Raises ExecutionError.
    """
    with checked(), ExitStack() as stack:
        try:
            with held_back(), io_errors(out):
                for parent in _missing_parents(out):
                    stack.callback(_remove_if_empty, parent)
                    parent.mkdir(exist_ok=True)
                    sync_directory(parent.parent)
                stack.enter_context(locked(out))
                prepare(stack)
            yield
        finally:
            with held_back(), io_errors(out):
                stack.close()


def put_file(path: Path, data: bytes) -> None:
    """Put a file into a published directory at once, over one of its name; the lock is held.

    It is staged where directories are, beside the published one, which never holds half a file.
    Raises ExecutionError.
    """
    staged = path.parent.with_name(f".{path.parent.name}.partial")
    with io_errors(path):
        _remove(staged)
        try:
            write_file(staged, data)
            os.replace(staged, path)
        finally:
            staged.unlink(missing_ok=True)
        sync_directory(path.parent)


def exchange(first: Path, second: Path) -> None:
    """Swap what two paths name in one atomic step.

    Raises OSError; where the platform or the file system cannot, with ENOSYS or EINVAL.
    """
    import ctypes

    old, new = os.fsencode(first), os.fsencode(second)
    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else object()
    if hasattr(libc, "renameat2"):  # Linux: AT_FDCWD, RENAME_EXCHANGE
        failed = libc.renameat2(-100, old, -100, new, 2)
    elif hasattr(libc, "renamex_np"):  # macOS: RENAME_SWAP
        failed = libc.renamex_np(old, new, 2)
    else:
        raise OSError(errno.ENOSYS, "this platform has no call for it")
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(second))


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the lock of ``out``, a file beside it; the system lets go of it when a process dies.

    ``out`` is spelled without links. Raises ExecutionError when another run holds it.
    """
    path = out.with_name(f".{out.name}.lock")
    taken: list[int] = []
    try:
        with held_back():
            taken.append(_take_lock(path))
        yield
    except (BlockingIOError, FileExistsError):
        if taken:
            raise
        raise ExecutionError(
            "another run is writing to this target",
            code="locked",
            where=str(out),
            hint="wait until it has ended, or name another directory",
        ) from None
    finally:
        with held_back():
            for fd in taken:
                if sys.platform != "win32":
                    with suppress(OSError):
                        path.unlink()  # before letting go of it: nobody else can hold it yet
                os.close(fd)


if sys.platform == "win32":

    def _take_lock(path: Path) -> int:
        # The system deletes the file with its last holder, so that its existence is the lock.
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_TEMPORARY)

else:
    import fcntl

    def _take_lock(path: Path) -> int:
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(fd, path):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # its last holder removed it between our two calls


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _resolve(out: Path) -> Path:
    """Return the one spelling of ``out`` that all runs use; a link at its end is not followed."""
    with io_errors(out):
        if out.name in ("", ".."):
            out = Path(os.path.realpath(out))
        if not out.name:
            raise _refusal(out, "the target is the root of a file system")
        return Path(os.path.realpath(out.parent), out.name)


def _missing_parents(path: Path) -> list[Path]:
    """Return the parents that do not exist, outermost first."""
    return [parent for parent in path.parents if not parent.exists()][::-1]


def _check_target(out: Path, overwrite: bool) -> bool:
    """Return whether there is a canonical directory to replace; refuse whatever must stay."""
    if not os.path.lexists(out):
        return False
    if out.is_symlink() or not out.is_dir():
        raise _refusal(out, "the target is a file or a link, which is never overwritten")
    if os.path.ismount(out):
        raise _refusal(out, "the target is a mount point, which cannot be replaced")
    names = os.listdir(out)
    if not names:
        return False
    if not overwrite:
        hint = "give --overwrite to replace it, or name another directory"
        raise _refusal(out, "the target exists and is not empty", hint=hint)
    if BUNDLE_NAME in names:
        _check_bundle(out)
    else:
        _check_canonical(out)
    return True


def _check_canonical(out: Path) -> None:
    """Refuse a directory that holds anything but the files of a canonical one."""
    with os.scandir(out) as entries:
        kinds = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    strangers = [
        name for name, is_file in kinds.items() if not (is_file and FILE_NAME.fullmatch(name))
    ]
    if strangers or MANIFEST_NAME not in kinds:
        raise ExecutionError(
            "the target is not a canonical directory, so it is not overwritten",
            code="exists",
            where=str(out),
            expected=f"{MANIFEST_NAME} and the files that it lists, nothing else",
            got=", ".join(sorted(strangers)[:_LISTED]) or f"no {MANIFEST_NAME}",
            hint="remove it yourself if nothing in it is needed, or name another directory",
        )


def _check_bundle(out: Path) -> None:
    """Refuse a bundle that holds anything but its record and canonical directories."""
    with os.scandir(out) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _check_canonical(out / entry.name)
            elif entry.name not in _BUNDLE_FILES or not entry.is_file(follow_symlinks=False):
                hint = "remove it yourself if it is not needed, or name another directory"
                raise _refusal(out / entry.name, "not a file of a bundle", hint=hint)


def _refusal(out: Path, what: str, hint: str = "name another directory") -> ExecutionError:
    return ExecutionError(what, code="exists", where=str(out), hint=hint)


def check_space(out: Path, size_bytes: int) -> None:
    """Raise ExecutionError if the disk of ``out`` has not that many bytes left."""
    free_bytes = shutil.disk_usage(out.parent).free
    if free_bytes < size_bytes:
        raise ExecutionError(
            "not enough space on the disk of the target",
            code="space",
            where=str(out),
            expected=f"{size_bytes:,} bytes",
            got=f"{free_bytes:,} bytes free",
            hint="free some space, or write to another disk",
        )


def _check_exchange(directory: Path) -> None:
    """Prove that directories can be exchanged here, by exchanging two."""
    first, second = directory / "first", directory / "second"
    first.mkdir()
    second.mkdir()
    try:
        exchange(first, second)
    except OSError as error:
        raise ExecutionError(
            "--overwrite needs an atomic exchange of directories, which is not to be had here",
            code="exchange",
            where=str(directory.parent),
            got=error.strerror,
            hint="remove the old directory yourself, or name another",
        ) from error
    first.rmdir()
    second.rmdir()


def _remove(path: Path) -> None:
    """Remove what a killed run left at ``path``, if anything."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_if_empty(path: Path) -> None:
    """Remove a directory, unless something lies in it."""
    with suppress(OSError):
        path.rmdir()


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to disk, where the platform can. Raises OSError."""
    if os.name == "nt":
        return  # it has no such call
    fd = os.open(path, open_flags("O_RDONLY", "O_DIRECTORY", "O_CLOEXEC"))
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have none for directories
            raise
    finally:
        os.close(fd)
