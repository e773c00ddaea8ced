"""Facts of the canonical format: file names, metadata, and where each tensor lies.

A canonical file is an ordinary safetensors file whose header is padded with spaces so that
data starts at a multiple of 4096, and whose tensors are ordered so that each one starts
aligned and no holes are left. Source of the container: the safetensors format description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from converter.spec import TensorSpec

FORMAT_VERSION = 1
METADATA = {"format": "pt", "canonical": str(FORMAT_VERSION)}

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
MANIFEST_NAME = "manifest.json"
SUMS_NAME = "SHA256SUMS"

DATA_ALIGNMENT_BYTES = 4096
TENSOR_ALIGNMENT_BYTES = 256
PIECE_BYTES = 64 << 20

TENSOR_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,511}")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one tensor lies: ``[begin, end)`` in bytes from the start of a file's data."""

    name: str
    spec: TensorSpec
    begin: int
    end: int


def shard_name(number: int, count: int) -> str:
    """Return the file name of shard ``number`` (from 1) of ``count``."""
    return WEIGHTS_NAME if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def arrange(tensors: Iterable[tuple[str, TensorSpec]]) -> tuple[Placement, ...]:
    """Place tensors, given in execution order, in one file.

    Tensors whose size is a multiple of 256 bytes come first, in the order given, so that each
    starts at such a multiple; the others follow by falling power-of-two divisor of their size,
    so that each starts at a multiple of its element size; empty tensors come last, by name.
    """
    aligned: list[tuple[str, TensorSpec]] = []
    odd: list[tuple[str, TensorSpec]] = []
    empty: list[tuple[str, TensorSpec]] = []
    for name, spec in tensors:
        if spec.nbytes == 0:
            empty.append((name, spec))
        elif spec.nbytes % TENSOR_ALIGNMENT_BYTES == 0:
            aligned.append((name, spec))
        else:
            odd.append((name, spec))
    odd.sort(key=lambda item: -(item[1].nbytes & -item[1].nbytes))
    empty.sort(key=lambda item: item[0])
    placements = []
    begin = 0
    for name, spec in (*aligned, *odd, *empty):
        placements.append(Placement(name, spec, begin, begin + spec.nbytes))
        begin += spec.nbytes
    return tuple(placements)


def encode_header(placements: Sequence[Placement]) -> bytes:
    """Return the first bytes of a canonical file: length, header, padding.

    The length of the result is a multiple of 4096 and is the offset at which data starts.
    """
    entries: dict[str, object] = {"__metadata__": METADATA}
    for placement in placements:
        entries[placement.name] = {
            "dtype": placement.spec.dtype,
            "shape": list(placement.spec.shape),
            "data_offsets": [placement.begin, placement.end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    padding = -(8 + len(text)) % DATA_ALIGNMENT_BYTES
    return (len(text) + padding).to_bytes(8, "little") + text + b" " * padding
