"""A tensor comes block by block, whatever its size and where it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy_files import write

from converter.source import open_source
from converter.source.stored import Sameness, Stored, blocks


@pytest.mark.parametrize("size_bytes", [1, 8, 40, 60, 1 << 20])
def test_blocks_laid_end_to_end_are_the_tensor(size_bytes: int, tmp_path: Path) -> None:
    values = np.arange(15, dtype=np.float32).reshape(3, 5)
    write(tmp_path / "a.safetensors", {"before": values + 1, "meant": values})
    with open_source(tmp_path / "a.safetensors") as source:
        tensor = Stored(source, "meant", source.header["meant"])
        parts = [bytes(block) for block in blocks(tensor, size_bytes)]
    assert b"".join(parts) == values.tobytes()
    assert {len(part) for part in parts[:-1]} <= {size_bytes}


def test_an_empty_tensor_has_no_blocks(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", {"empty": np.empty((0, 3), np.float32)})
    with open_source(tmp_path / "a.safetensors") as source:
        assert not list(blocks(Stored(source, "empty", source.header["empty"]), 4))


def test_elements_are_the_same_if_no_block_has_another() -> None:
    sameness = Sameness("BF16")
    for block in (b"\x01\x02" * 600, b"\x01\x02"):
        sameness.add(memoryview(block))
        assert sameness.holds
    sameness.add(memoryview(b"\x02\x01"))
    sameness.add(memoryview(b"\x01\x02"))
    assert not sameness.holds


def test_what_differs_late_in_a_block_is_seen() -> None:
    sameness = Sameness("U8")
    sameness.add(memoryview(bytes(2000) + b"\x01"))
    assert not sameness.holds
