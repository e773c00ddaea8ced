"""A process that never leaves a directory alone: ``swapper.py KIND PATH OLD NEW COUNTER``.

It gives PATH the content of NEW, then that of OLD, and so on until its stdin is closed, by steps
that it counts in the file COUNTER, as eight bytes. With each content whole, it rests a moment.
"""

from __future__ import annotations

import mmap
import random
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from converter.publish import exchange

COUNTER_BYTES = 8
_RESTS_SECONDS = (0.0, 0.001, 0.01, 0.05)


def files_of(folder: Path) -> list[Path]:
    """Return the files below a folder, relative to it, in another order each time."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    random.shuffle(files)
    return files


def rename(path: Path, content: Path) -> Iterator[None]:
    """Put other files under the names of these, one after the other."""
    for name in files_of(content):
        shutil.copy(content / name, path.with_name("renamed"))
        path.with_name("renamed").replace(path / name)
        yield


def edit(path: Path, content: Path) -> Iterator[None]:
    """Write other bytes over those of the files, in several calls each."""
    for name in files_of(content):
        data = (content / name).read_bytes()
        with (path / name).open("r+b", buffering=0) as file:
            for begin in range(0, len(data), 1 << 16):
                file.write(data[begin : begin + (1 << 16)])
            file.truncate()
        yield


def rewrite(path: Path, content: Path) -> Iterator[None]:
    """Empty the files, and fill them anew."""
    for name in files_of(content):
        (path / name).write_bytes((content / name).read_bytes())
        yield


def exchanged(path: Path, content: Path) -> Iterator[None]:
    """Put another directory in the place of this one, which stays elsewhere."""
    elsewhere = path.with_name("elsewhere")
    if not elsewhere.exists():
        shutil.copytree(content, elsewhere)
    exchange(elsewhere, path)
    yield


def published(path: Path, content: Path) -> Iterator[None]:
    """Put another directory in the place of this one, which is removed."""
    elsewhere = path.with_name("elsewhere")
    shutil.copytree(content, elsewhere)
    exchange(elsewhere, path)
    yield
    shutil.rmtree(elsewhere)
    yield


KINDS: dict[str, Callable[[Path, Path], Iterator[None]]] = {
    act.__name__: act for act in (rename, edit, rewrite, exchanged, published)
}


def _main(kind: str, path: Path, old: Path, new: Path, counter: Path) -> None:
    with counter.open("r+b") as file, mmap.mmap(file.fileno(), COUNTER_BYTES) as count:
        steps = 0
        while True:
            for content in (new, old):
                for _ in KINDS[kind](path, content):
                    steps += 1
                    count[:] = steps.to_bytes(COUNTER_BYTES, "little")
                time.sleep(random.choice(_RESTS_SECONDS))
            if select.select([sys.stdin], [], [], 0)[0]:
                return


if __name__ == "__main__":
    _main(sys.argv[1], *map(Path, sys.argv[2:]))
