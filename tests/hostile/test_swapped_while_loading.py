"""Directories that another process changes all the time while they are loaded.

``CONVERTER_ROUNDS=100`` loads as often with a change in the middle; ``-s`` shows what came of it.
"""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest
import swapper
import torch
from blocks import write_models
from bundles import convert_small, small_tensors, small_text, write_small
from swapper import COUNTER_BYTES
from torch import Tensor

from converter import api
from converter.errors import MismatchError, SourceError
from converter.positional import WriteBuffer, read_at
from converter.runtime import Check, load_bundle, load_model, load_tensors

ROUNDS = int(os.environ.get("CONVERTER_ROUNDS", "10"))
MOST_ROUNDS = 100 * ROUNDS

Loaded = Mapping[str, Tensor]
Load = Callable[[Path, Check], Loaded]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs an atomic exchange")


def tensors_of(path: Path, check: Check) -> Loaded:
    return load_tensors(path, check=check)


def model_of(path: Path, check: Check) -> Loaded:
    return load_model(path / "lm", check=check).state_dict()


def bundle_of(path: Path, check: Check) -> Loaded:
    return {
        f"{member}/{name}": tensor
        for member, network in load_bundle(path, check=check).items()
        for name, tensor in network.state_dict().items()
    }


ONE_BY_ONE = ("rename", "edit", "rewrite")
AT_ONCE = ("exchanged", "published")
FOLDERS: dict[Load, str] = {tensors_of: "blocks", model_of: "bundle", bundle_of: "bundle"}


@dataclass
class Changes:
    """How often a directory has changed, and how often when bytes of its weights were read."""

    count: mmap.mmap
    at_reads: list[int] = field(default_factory=list)

    def now(self) -> int:
        return int.from_bytes(self.count[:], "little")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``old`` and ``new`` of each kind, alike but for every weight."""
    folder = tmp_path_factory.mktemp("swapped")
    for kind in FOLDERS.values():
        (folder / kind).mkdir(exist_ok=True)
    write_some_blocks(folder / "blocks")
    write_bundles(folder / "bundle")
    return folder


def write_some_blocks(folder: Path) -> None:
    """Write canonical directories of 6 MB in four files."""
    sources, _ = write_models(folder)
    rules = folder / "blocks.yaml"
    for out, source in zip(("old", "new"), sources.values(), strict=True):
        api.convert(source, folder / out, rules=rules, max_shard_size="2MB", jobs=1)


def write_bundles(folder: Path) -> None:
    """Write the last members of the small bundle: few files, all of which are right at times."""
    tensors = small_tensors()
    kept = ("format:", "bundle:", "title:", "sources:", "members:", "  lm:", "  decoder:")
    lines = [line for line in small_text().splitlines() if line.startswith(kept)]
    for out in ("old", "new"):
        write_small(folder, tensors).write_text("\n".join(lines) + "\n")
        convert_small(folder, out)
        for weights in tensors.values():
            for name in weights:
                if name.endswith((".weight", ".bias", ".gamma")):
                    weights[name] += 1


@pytest.fixture
def changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Changes]:
    """Read small chunks, so that a load takes long enough; count what happens meanwhile."""
    counter = tmp_path / "counter"
    counter.write_bytes(bytes(COUNTER_BYTES))
    monkeypatch.setattr("converter.runtime.read.CHUNK_BYTES", 1 << 14)
    with counter.open("r+b") as file, mmap.mmap(file.fileno(), COUNTER_BYTES) as count:
        changes = Changes(count)

        def counting(fd: int, buffer: WriteBuffer, position: int) -> None:
            changes.at_reads.append(changes.now())
            os.sched_yield()
            read_at(fd, buffer, position)

        monkeypatch.setattr("converter.runtime.read.read_at", counting)
        yield changes


@contextmanager
def swapping(kind: str, path: Path, folder: Path) -> Iterator[None]:
    """Let ``path`` be changed by a process until the block ends."""
    shutil.copytree(folder / "old", path)
    arguments = [kind, path, folder / "old", folder / "new", path.with_name("counter")]
    command = [sys.executable, swapper.__file__, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


def is_equal(loaded: Loaded, whole: Loaded) -> bool:
    return loaded.keys() == whole.keys() and all(
        torch.equal(tensor, whole[name]) for name, tensor in loaded.items()
    )


def outcomes(
    load: Load, check: Check, path: Path, folder: Path, changes: Changes
) -> Iterator[tuple[str, bool]]:
    """Load again and again; yield what came of it, and whether something changed meanwhile."""
    wholes = {name: load(folder / name, "full") for name in ("old", "new")}
    same = [name for name, tensor in wholes["old"].items() if tensor.equal(wholes["new"][name])]
    assert len(same) * 20 < len(wholes["old"])  # windows, ramps and the like
    for _ in range(MOST_ROUNDS):
        changes.at_reads.clear()
        try:
            loaded = load(path, check)
        except (MismatchError, SourceError) as error:
            outcome = error.findings[0].code
        else:
            right = [name for name, whole in wholes.items() if is_equal(loaded, whole)]
            outcome = right[0] if right else "mixed"
        reads = changes.at_reads
        yield outcome, bool(reads) and reads[0] != changes.now()


def survey(
    load: Load, check: Check, kind: str, tmp_path: Path, folders: Path, changes: Changes
) -> set[str]:
    """Return what came of loads in whose middle something changed, and of others."""
    folder, path = folders / FOLDERS[load], tmp_path / "swapped"
    seen: Counter[str] = Counter()
    hits = 0
    with swapping(kind, path, folder):
        for outcome, hit in outcomes(load, check, path, folder, changes):
            seen[outcome] += 1
            hits += hit
            whole = seen["old"] + seen["new"]
            if hits >= ROUNDS and whole and (seen.total() > whole or kind in AT_ONCE):
                break
    what = f"{load.__name__}, {check}, {kind}"
    print(f"\n{what}: {hits} hit while reading of {seen.total()}; {dict(seen)}")
    assert hits >= ROUNDS
    assert whole
    return set(seen)


@pytest.mark.parametrize("kind", ONE_BY_ONE)
@pytest.mark.parametrize("load", FOLDERS)
def test_what_is_loaded_from_files_that_change_is_all_old_or_all_new(
    tmp_path: Path, folders: Path, changes: Changes, kind: str, load: Load
) -> None:
    seen = survey(load, "full", kind, tmp_path, folders, changes)
    assert "mixed" not in seen
    assert seen - {"old", "new"}


@pytest.mark.parametrize("check", get_args(Check))
@pytest.mark.parametrize("kind", AT_ONCE)
@pytest.mark.parametrize("load", FOLDERS)
def test_a_directory_that_is_replaced_at_once_is_loaded_whole_and_without_an_error(
    tmp_path: Path, folders: Path, changes: Changes, kind: str, load: Load, check: Check
) -> None:
    assert survey(load, check, kind, tmp_path, folders, changes) <= {"old", "new"}


def test_bytes_that_are_not_checked_do_get_mixed(
    tmp_path: Path, folders: Path, changes: Changes
) -> None:
    folder, path = folders / "blocks", tmp_path / "swapped"
    with swapping("rename", path, folder):
        found = outcomes(tensors_of, "header", path, folder, changes)
        assert any(outcome == "mixed" for outcome, _ in found)
