"""Write the checkpoint of the benches: ``python -m benchmarks.write_checkpoint FOLDER BYTES KIND``.

The folder gets ``model.safetensors``, ``rules.yaml`` and ``config.json``. Values are drawn block by
block from a counter, so that they are the same every time, and memory is that of one block.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from benchmarks import checkpoint
from benchmarks.checkpoint import TensorShape

BLOCK_ELEMENTS = 1 << 22

Block: TypeAlias = "NDArray[np.float32] | NDArray[np.int64]"


def write(folder: Path, size_bytes: int, kind: str) -> None:
    """Write a checkpoint of ``size_bytes``, its rule file and its configuration."""
    dims = checkpoint.dims_for(size_bytes, kind)
    tensors = checkpoint.tensors_of(dims)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.yaml").write_text(checkpoint.rules_text(dims), "utf-8")
    (folder / "config.json").write_text(checkpoint.config_text(dims), "utf-8")
    with (folder / "model.safetensors").open("wb") as file:
        file.write(checkpoint.encode_header(tensors))
        for number, (name, tensor) in enumerate(tensors.items()):
            for block in blocks(number, name, tensor):
                file.write(block.data)


def blocks(number: int, name: str, tensor: TensorShape) -> Iterator[Block]:
    """Yield the values of a tensor, as trained weights might look, a block at a time."""
    count = prod(tensor.shape)
    for index, begin in enumerate(range(0, count, BLOCK_ELEMENTS)):
        end = min(begin + BLOCK_ELEMENTS, count)
        if tensor.dtype == "I64":
            yield np.arange(begin, end, dtype=np.int64)
            continue
        generator = np.random.Generator(np.random.Philox(key=(number << 64) | index))
        values = generator.standard_normal(end - begin, dtype=np.float32)
        yield _shaped(name, tensor, values)


def _shaped(name: str, tensor: TensorShape, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give normal values the mean and the spread that a tensor of this name has."""
    leaf = name.rpartition(".")[2]
    if leaf == "weight_g":
        return np.abs(values, out=values) + np.float32(0.5)
    if leaf == "gamma" or (leaf == "weight" and len(tensor.shape) == 1):
        return values * np.float32(0.1) + np.float32(1)
    if leaf in ("beta", "bias"):
        return values * np.float32(0.1)
    # Training leaves outliers, and a spread of its own to every matrix.
    spread = 0.01 + 0.02 * (crc32(name.encode()) % 1000) / 1000
    tails = values * values
    tails *= np.float32(0.1 * spread)
    tails += np.float32(spread)
    values *= tails
    return values


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
