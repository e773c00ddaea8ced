"""Where the benches work: a scratch directory, what is made in it, and how much room is left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from benchmarks.checkpoint import Dims, dims_for
from benchmarks.measure import Contender, Say, call, python, remove

# What must stay free on the disk whatever is written.
_SPARE_BYTES = 1_000_000_000
KEPT_NAME = "converter-benchmarks"


class SkippedError(Exception):
    """A bench cannot run here, and why."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, with the rules that convert it."""

    folder: Path
    dims: Dims
    size_bytes: int

    @property
    def path(self) -> Path:
        """The file of tensors."""
        return self.folder / "model.safetensors"

    @property
    def rules(self) -> Path:
        """The rule file."""
        return self.folder / "rules.yaml"


@dataclass(frozen=True)
class Workplace:
    """What every bench is given.

    ``pythons`` are the interpreters in which contenders are looked for, this one first; ``only``
    are the contenders that are wanted, none meaning all; ``jobs`` is the number of our workers;
    ``keeps`` says that what was made stays for a next run.
    """

    scratch: Path
    rounds: int
    jobs: int
    pythons: Sequence[str]
    say: Say
    only: Sequence[str] = ()
    keeps: bool = False

    def wants(self, contender: str) -> bool:
        """Return whether a contender is to run."""
        return not self.only or contender in self.only

    def wanted(self, contenders: Sequence[Contender]) -> list[Contender]:
        """Return those that are to run. Raises SkippedError when there are none."""
        chosen = [contender for contender in contenders if self.wants(contender.name)]
        if not chosen:
            raise SkippedError("none of its contenders is wanted")
        return chosen

    def need(self, size_bytes: int) -> None:
        """Raise SkippedError unless so much can be written."""
        free = shutil.disk_usage(self.scratch).free - _SPARE_BYTES
        if free < size_bytes:
            raise SkippedError(
                f"it would write {size_bytes / 1e9:.1f} GB, and {max(free, 0) / 1e9:.1f} GB can be "
                "written to the scratch directory: give another --scratch"
            )

    def checkpoint(self, size_bytes: int, kind: str = "mixed") -> Checkpoint:
        """Return a checkpoint of that size, made if it is not there."""
        folder = self.scratch / f"{kind}-{size_bytes}"
        if not folder.exists():
            self.need(size_bytes)
            self.say(f"  writing a checkpoint of {size_bytes / 1e9:g} GB")
            making = folder.with_name(f"{folder.name}.part")
            remove(making)
            program = "benchmarks.write_checkpoint"
            call(python("-m", program, making, str(size_bytes), kind))
            making.rename(folder)
        return Checkpoint(folder, dims_for(size_bytes, kind), size_bytes)

    def canonical(self, size_bytes: int) -> Path:
        """Return the canonical directory of the checkpoint of that size, made if not there."""
        out = self.scratch / f"canonical-{size_bytes}"
        if not out.exists():
            source = self.checkpoint(size_bytes)
            self.need(size_bytes)
            self.say("  converting it")
            call(convert(source, out, jobs=self.jobs))
        return out

    def forget(self, size_bytes: int) -> None:
        """Remove what was made for a size."""
        for path in self.scratch.glob(f"*-{size_bytes}"):
            remove(path)


def convert(
    source: Checkpoint, out: Path, *, jobs: int, extra: Sequence[str] = ()
) -> list[str | Path]:
    """Return the command that converts a checkpoint."""
    command = python("-m", "converter", "convert", source.path, out, "--rules", source.rules)
    return [*command, "--quiet", "--jobs", str(jobs), *extra]


@contextmanager
def scratch_folder(parent: Path, *, keep: bool) -> Iterator[Path]:
    """Yield a folder to work in; it is removed at the end, unless it is to be kept for a next run.

    What is kept are checkpoints, found again below the same ``parent``. Canonical directories are
    made anew, by the code that is to be measured.
    """
    if keep:
        folder = parent / KEPT_NAME
        folder.mkdir(parents=True, exist_ok=True)
        for made_before in folder.glob("canonical-*"):
            remove(made_before)
        yield folder
        return
    folder = Path(mkdtemp(prefix=f"{KEPT_NAME}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
