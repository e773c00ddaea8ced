"""No change of a byte passes, in any file, whether or not a digest is pinned.

Every change is of one byte, at random; so are the bits of it that change.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy import convert, toy_tensors
from toy_bundle import convert_toys, write_toys

from converter import api

CHANGES = 230
# How often there are as many of them; in all over 2,000.
ROUNDS = {"one-file": 4, "shards": 3, "bundle": 2}
CASES = [(kind, seed) for kind, rounds in ROUNDS.items() for seed in range(rounds)]


def make(kind: str, folder: Path) -> Path:
    if kind == "bundle":
        write_toys(folder)
        convert_toys(folder)
    else:
        convert(folder, toy_tensors(), max_shard_size="200B" if kind == "shards" else None)
    return folder / "out"


def changes(out: Path, seed: int) -> Iterator[Path]:
    """Change one byte of one file, yield the file, and change it back; and so on, at random."""
    chance = random.Random(seed)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    for number in range(CHANGES):
        file = files[number % len(files)]
        data = file.read_bytes()
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        file.write_bytes(changed)
        yield file
        file.write_bytes(data)


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_no_change_of_a_byte_passes_with_or_without_a_pin(
    kind: str, seed: int, tmp_path: Path
) -> None:
    out = make(kind, tmp_path)
    pin = api.verify(out, jobs=1).manifest_sha256
    assert pin is not None
    assert api.verify(out, manifest_sha256=pin, jobs=1).holds
    changed = set()
    for file in changes(out, seed):
        verification = api.verify(out, manifest_sha256=pin, jobs=1)
        assert verification.findings, file  # which no pin has a part in
        assert not verification.holds
        pinned = file.parent == out and file.name in ("manifest.json", "bundle.json")
        assert bool(verification.distrusted) == pinned, file
        changed.add(file)
    assert api.verify(out, manifest_sha256=pin, jobs=1).holds
    assert changed == {path for path in out.rglob("*") if path.is_file()}


def test_they_are_over_two_thousand() -> None:
    assert len(CASES) * CHANGES > 2000
