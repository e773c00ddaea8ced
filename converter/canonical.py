"""Facts of the canonical format: file names, metadata, and where each tensor lies.

A canonical file is an ordinary safetensors file whose header is padded with spaces so that
data starts at a multiple of 4096, and whose tensors are ordered so that each one starts
aligned and no holes are left. Source of the container: the safetensors format description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from converter.errors import ExecutionError, UsageError
from converter.spec import TensorSpec

FORMAT_VERSION = 1
METADATA: Mapping[str, str] = {"format": "pt", "canonical": str(FORMAT_VERSION)}

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
MANIFEST_NAME = "manifest.json"
SUMS_NAME = "SHA256SUMS"
SIGNATURE_NAME = "model.sig"

DATA_ALIGNMENT_BYTES = 4096
TENSOR_ALIGNMENT_BYTES = 256
PIECE_BYTES = 64 << 20

# The library's own limit (MAX_HEADER_SIZE in tensor.rs): a file above it opens nowhere.
MAX_HEADER_BYTES = 100_000_000

TENSOR_NAME = re.compile(r"(?!__metadata__$)[A-Za-z0-9_][A-Za-z0-9_.\-]{0,511}")
# Everything that a canonical directory may hold; other files in it are not ours to replace.
FILE_NAME = re.compile(
    r"model(-[0-9]{5,}-of-[0-9]{5,})?\.safetensors"
    r"|model\.safetensors\.index\.json|manifest\.json|SHA256SUMS|model\.sig"
)

NamedSpec: TypeAlias = tuple[str, TensorSpec]

_UNIT_BYTES = {"": 1, "B": 1, "kB": 1000} | {
    f"{prefix}{infix}B": base**power
    for power, prefix in enumerate("KMGT", start=1)
    for infix, base in (("", 1000), ("i", 1024))
}


class Placement(NamedTuple):
    """Where one tensor lies: ``[begin, end)`` in bytes from the start of a file's data.

    A tuple: plans make hundreds of thousands, and a frozen dataclass takes twice the time to make.
    """

    name: str
    spec: TensorSpec
    begin: int
    end: int


def shard_name(number: int, count: int) -> str:
    """Return the file name of shard ``number`` (from 1) of ``count``."""
    return WEIGHTS_NAME if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def parse_size(text: str) -> int:
    """Return the bytes that ``5GB`` (decimal), ``5GiB`` (binary) or ``5000000`` stands for.

    Raises UsageError for anything else, and for nothing at all.
    """
    match = re.fullmatch(r"([0-9]{1,18}) ?([A-Za-z]*)", text.strip())
    size = int(match[1]) * _UNIT_BYTES.get(match[2], 0) if match else 0
    if size == 0:
        raise UsageError("not a size", expected="a size such as 5GB, 500MiB or 5000000", got=text)
    return size


def partition(
    tensors: Iterable[NamedSpec], max_shard_bytes: int | None
) -> tuple[tuple[NamedSpec, ...], ...]:
    """Split tensors, given in execution order, into shards of at most that many bytes of data.

    A tensor above the limit gets a shard of its own; None means no limit. There is always at
    least one shard.
    """
    if max_shard_bytes is None:
        return (tuple(tensors),)
    shards: list[list[NamedSpec]] = [[]]
    filled = 0
    for name, spec in tensors:
        size = spec.nbytes
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append((name, spec))
        filled += size
    return tuple(map(tuple, shards))


def arrange(tensors: Iterable[NamedSpec]) -> tuple[Placement, ...]:
    """Place tensors, given in execution order, in one file.

    Tensors whose size is a multiple of 256 bytes come first, in the order given, so that each
    starts at such a multiple; the others follow by falling power-of-two divisor of their size,
    so that each starts at a multiple of its element size; empty tensors come last, by name.
    """
    placements: list[Placement] = []
    odd: list[tuple[str, TensorSpec, int]] = []
    empty: list[tuple[str, TensorSpec, int]] = []
    begin = 0
    for name, spec in tensors:
        size = spec.nbytes
        if size == 0:
            empty.append((name, spec, size))
        elif size % TENSOR_ALIGNMENT_BYTES:
            odd.append((name, spec, size))
        else:
            placements.append(Placement(name, spec, begin, begin + size))
            begin += size
    odd.sort(key=lambda item: -(item[2] & -item[2]))
    empty.sort(key=lambda item: item[0])
    for name, spec, size in (*odd, *empty):
        placements.append(Placement(name, spec, begin, begin + size))
        begin += size
    return tuple(placements)


def encode_header(placements: Sequence[Placement], metadata: Mapping[str, str] = METADATA) -> bytes:
    """Return the first bytes of a canonical file: length, header, padding.

    Other ``metadata`` make it a file that has the layout alone. The length of the result is a
    multiple of 4096 and is the offset at which data starts. Raises ExecutionError when the header
    exceeds what any reader accepts.
    """
    # Spelled by hand: a load of many small tensors spells them all, to compare.
    members = [
        f'{_encode(tensor.name)}:{{"dtype":{_encode(tensor.spec.dtype)}'
        f',"shape":[{",".join(map(str, tensor.spec.shape))}]'
        f',"data_offsets":[{tensor.begin},{tensor.end}]}}'
        for tensor in placements
    ]
    first = f'"__metadata__":{_encode(dict(metadata))}'
    text = f"{{{','.join([first, *members])}}}".encode("ascii")
    padding = -(8 + len(text)) % DATA_ALIGNMENT_BYTES
    length = len(text) + padding
    if length > MAX_HEADER_BYTES:
        raise ExecutionError(
            "too many tensors for the header of one file",
            expected=f"a header of at most {MAX_HEADER_BYTES:,} bytes",
            got=f"{length:,} bytes for {len(placements):,} tensors",
            hint="give --max-shard-size, so that there are several files",
        )
    return length.to_bytes(8, "little") + text + b" " * padding


_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def encode_index(shards: Mapping[str, Sequence[Placement]]) -> bytes:
    """Return the index of a sharded checkpoint, from each file's name and its tensors.

    Source of the form: ``save_pretrained`` of transformers.
    """
    total_size = sum(tensor.end - tensor.begin for file in shards.values() for tensor in file)
    weight_map = {tensor.name: name for name, file in shards.items() for tensor in file}
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    return (json.dumps(index, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")


def encode_sums(digests: Mapping[str, str]) -> bytes:
    """Return file names and their sha256 in hexadecimal as ``sha256sum --check`` reads them."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode("ascii")
