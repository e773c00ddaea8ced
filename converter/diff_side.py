"""One of two checkpoints that are compared: its tensors, by the names that they are loaded by."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from converter.canonical import MANIFEST_NAME, METADATA
from converter.digest import BLOCK_BYTES
from converter.manifest import Manifest, Statistics
from converter.progress import Progress
from converter.source import Source, open_source
from converter.source.manifest_file import read_manifest
from converter.source.stored import Sameness, Stored, blocks
from converter.spec import Header


@dataclass(frozen=True, slots=True)
class Side:
    """An open checkpoint. The aliases of a canonical directory are names as others are.

    ``stated`` are digests that a manifest has, and ``stats`` its statistics, by stored name:
    nothing shows that they are those of the bytes.
    """

    path: Path
    source: Source
    header: Header
    stored: Mapping[str, str]
    stated: Mapping[str, str]
    stats: Mapping[str, Statistics]

    def tensor(self, name: str) -> Stored:
        """Return one of its tensors."""
        return Stored(self.source, self.stored[name], self.header[name])


class Meter:
    """Tells from many threads how far work is; ``total`` may grow."""

    def __init__(self, progress: Progress) -> None:
        self.total = 0
        self._progress = progress
        self._lock = threading.Lock()

    def advance(self, size_bytes: int) -> None:
        """Tell that so many bytes more are done."""
        with self._lock:
            self._progress(size_bytes, self.total)


@contextmanager
def opened_side(path: Path) -> Iterator[Side]:
    """Open a checkpoint or a canonical directory; raises SourceError, and MismatchError.

    At the end its files must be those that were opened.
    """
    with open_source(path) as source:
        manifest = _manifest(path, source)
        aliases = manifest.aliases if manifest else {}
        stored = {name: name for name in source.header}
        stored |= {name: of for name, of in aliases.items() if of in stored and name not in stored}
        records = manifest.tensors if manifest else ()
        fitting = [item for item in records if source.header.get(item.name) == item.spec]
        yield Side(
            path,
            source,
            {name: source.header[of] for name, of in stored.items()},
            stored,
            {item.name: item.sha256 for item in fitting},
            {item.name: item.stats for item in fitting if item.stats is not None},
        )
        source.check_unchanged()


def _manifest(path: Path, source: Source) -> Manifest | None:
    """Return the manifest, if the path is a canonical directory."""
    where = path / MANIFEST_NAME
    canonical = source.metadata.get("canonical") == METADATA["canonical"]
    return read_manifest(where) if canonical and os.path.lexists(where) else None


def digests(sides: Iterable[Side], *, jobs: int, meter: Meter) -> list[dict[str, str]]:
    """Return the sha256 of the bytes of every tensor of each side, by name."""
    sides = list(sides)
    wanted = [
        (number, Stored(side.source, name, spec))
        for number, side in enumerate(sides)
        for name, spec in side.source.header.items()
    ]
    meter.total += sum(tensor.spec.nbytes for _, tensor in wanted)
    wanted.sort(key=lambda pair: -pair[1].spec.nbytes)  # the longest work first
    made: list[dict[str, str]] = [{} for _ in sides]
    with ThreadPoolExecutor(jobs) as pool:
        found = pool.map(lambda pair: sha256(pair[1], meter.advance), wanted)
        for (number, tensor), digest in zip(wanted, found, strict=True):
            made[number][tensor.name] = digest
    return [
        {name: known[of] for name, of in side.stored.items()}
        for side, known in zip(sides, made, strict=True)
    ]


def sha256(tensor: Stored, advance: Callable[[int], None]) -> str:
    """Return the digest of a tensor's bytes; ``advance`` is told of them block by block."""
    digest = hashlib.sha256()
    for block in blocks(tensor, BLOCK_BYTES):
        digest.update(block)
        advance(len(block))
    return digest.hexdigest()


def is_constant(tensor: Stored) -> bool:
    """Whether all elements have the same bytes; a dtype of less than a byte goes by bytes."""
    sameness = Sameness(tensor.spec.dtype)
    for block in blocks(tensor, BLOCK_BYTES):
        sameness.add(block)
        if not sameness.holds:
            return False
    return True
