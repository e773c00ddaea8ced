"""A tiny conversion for test_publish.py, interrupted before any call of the operating system.

As a program it repeats the conversion in child processes, the n-th of which is killed before its
n-th call, until one survives: ``publish_scenario.py DIRECTORY [--overwrite]``.
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from converter import publish
from converter.canonical import MANIFEST_NAME, SUMS_NAME, WEIGHTS_NAME, arrange, encode_header
from converter.publish import Staging
from converter.spec import TensorSpec
from converter.write import WeightsFile, write_file
from converter.write_blocks import BlockMemory

OLD, NEW = b"o", b"n"
PLACEMENTS = arrange([("a", TensorSpec("U8", (3, 4096)))])
CALLS = (
    *("open", "mkdir", "chmod", "posix_fallocate", "pwrite", "fsync", "rename"),
    *("scandir", "unlink", "rmdir"),
)


def convert(out: Path, mark: bytes, *, overwrite: bool = False) -> None:
    """Publish a canonical directory whose bytes are all ``mark``."""
    with Staging(out, size_bytes=1 << 16, overwrite=overwrite) as staging:
        memory = BlockMemory(window=2, block_bytes=4096)
        with memory, WeightsFile(staging.path / WEIGHTS_NAME, PLACEMENTS, memory) as file:
            for begin in (8192, 0, 4096):
                file.write(begin, mark * 4096)
        write_file(staging.path / MANIFEST_NAME, mark)
        write_file(staging.path / SUMS_NAME, mark)
        staging.publish()


def content(mark: bytes) -> dict[str, bytes]:
    """What ``convert`` leaves in its directory."""
    weights = encode_header(PLACEMENTS) + mark * 3 * 4096
    return {MANIFEST_NAME: mark, SUMS_NAME: mark, WEIGHTS_NAME: weights}


def read(out: Path) -> dict[str, bytes] | None:
    """What lies at ``out``; None when nothing does."""
    if not out.exists():
        return None
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


class Interruption:
    """Something that happens before one call of the operating system, the ``moment``-th."""

    def __init__(self, moment: int, act: Callable[[], None]) -> None:
        self.happened = False
        self._calls_before = moment - 1
        self._act = act

    def install(self, patch: Callable[[object, str, object], None]) -> None:
        """Wrap the calls that a conversion makes, by ``patch(module, name, wrapped)``."""
        for name in CALLS:
            patch(os, name, self._wrap(getattr(os, name)))
        patch(publish, "exchange", self._wrap(publish.exchange))

    def _wrap(self, call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            if self._calls_before == 0 and not self.happened:
                self.happened = True
                self._act()
            self._calls_before -= 1
            return call(*args, **kwargs)

        return wrapped


def kill_self() -> None:
    """Die at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(base: Path, overwrite: bool) -> None:
    """Run the conversion again and again, each killed one call later than the one before."""
    for moment in itertools.count(1):
        out = base / str(moment) / "out"
        out.parent.mkdir()
        if overwrite:
            convert(out, OLD)
        child = os.fork()
        if child == 0:
            Interruption(moment, kill_self).install(setattr)
            convert(out, NEW, overwrite=overwrite)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        assert os.WIFSIGNALED(status), "the conversion failed by itself"


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--overwrite" in sys.argv)
