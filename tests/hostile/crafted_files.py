"""Safetensors files that no honest writer writes, each made by a function without arguments.

Those with a number are the cases that safetensors 0.8 was measured with, of which it takes half.
"""

import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import TypeAlias

Case: TypeAlias = Callable[[], bytes]

A = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
A_AS_I32 = A.replace("F32", "I32")
A_FURTHER_ON = A.replace("[0,4]", "[4,8]")


def container(header: str | bytes, data: bytes = b"") -> bytes:
    """A file of this header, to the byte, and this data."""
    text = header.encode() if isinstance(header, str) else header
    return len(text).to_bytes(8, "little") + text + data


def members(*members: str, size: int = 4, before: str = "", after: str = "") -> bytes:
    """A file whose header is an object of these members, with ``size`` bytes of data."""
    return container(f"{before}{{{','.join(members)}}}{after}", bytes(size))


def with_shape(shape: str) -> bytes:
    """A file of one tensor with this shape, to the letter."""
    return members(A.replace("[1]", shape))


def tensors(entries: Mapping[str, object], data: bytes | int = 4) -> bytes:
    """A file of these tensors; ``data`` is the data, or how many zeros."""
    return container(json.dumps(entries), bytes(data) if isinstance(data, int) else data)


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    """The entry of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def one(dtype: str, shape: list[int], begin: int, end: int) -> bytes:
    """A file of one tensor and of as many bytes as it claims, up to 16."""
    return tensors({"a": entry(dtype, shape, begin, end)}, min(16, max(begin, end)))


def two(first: tuple[int, int], second: tuple[int, int], size: int) -> bytes:
    """A file of two scalars at these offsets, with ``size`` bytes of data."""
    return tensors({"a": entry("F32", [1], *first), "b": entry("F32", [1], *second)}, size)


def named(*names: str) -> bytes:
    """A file of scalars of these names."""
    entries = {name: entry("F32", [1], 4 * n, 4 * n + 4) for n, name in enumerate(names)}
    return tensors(entries, 4 * len(names))


def empty_zip() -> bytes:
    """A zip archive without members: 22 bytes."""
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    return buffer.getvalue()


REFUSED: dict[str, Case] = {
    "01 empty file": lambda: b"",
    "02 seven bytes": lambda: bytes(7),
    "03 header length zero": lambda: bytes(8),
    "04 header length past the end": lambda: (10**6).to_bytes(8, "little") + b"{}",
    "05 header length 2^64-1": lambda: b"\xff" * 8 + b"{}",
    "06 header length 100000001": lambda: (100_000_001).to_bytes(8, "little") + b"{}",
    "07 header not UTF-8": lambda: container(b'{"\xff":1}'),
    "08 header not JSON": lambda: container('{"a":'),
    "09 header a list": lambda: container("[]"),
    "10 space before the header": lambda: members(A, before=" "),
    "11 garbage after the header": lambda: members(A, after="x"),
    "12 header padded with NUL": lambda: members(A, after="\0\0"),
    "14 trailing bytes": lambda: members(A, size=5),
    "15 truncated data": lambda: members(A, size=3),
    "16 hole between": lambda: two((0, 4), (8, 12), 12),
    "17 overlap": lambda: two((0, 4), (2, 6), 6),
    "18 same range twice": lambda: two((0, 4), (0, 4), 4),
    "19 first not at zero": lambda: one("F32", [1], 4, 8),
    "20 end before begin": lambda: one("F32", [1], 4, 0),
    "21 negative offset": lambda: one("F32", [1], -4, 0),
    "22 size mismatch": lambda: one("F32", [2], 0, 4),
    "23 product of the shape overflows": lambda: one("F32", [2**33, 2**33], 0, 4),
    "24 shape times dtype wraps to zero": lambda: one("F64", [2**61], 0, 0),
    "25 zero times huge": lambda: one("F32", [0, 2**63], 0, 0),
    "26 huge then zero": lambda: one("F32", [2**47, 2**47, 0], 0, 0),
    "27 offset 2^64-1": lambda: one("F32", [1], 0, 2**64 - 1),
    "28 negative dim": lambda: with_shape("[-1]"),
    "29 float dim": lambda: with_shape("[1.0]"),
    "30 string dim": lambda: with_shape('["1"]'),
    "31 unknown dtype": lambda: one("F128", [1], 0, 16),
    "32 lowercase dtype": lambda: one("f32", [1], 0, 4),
    "33 missing shape": lambda: members(A.replace('"shape":[1],', "")),
    "34 extra field": lambda: members(A.replace("{", '{"evil":1,')),
    "35 field twice": lambda: members(A.replace("{", '{"dtype":"I32",')),
    "36 tensor twice": lambda: members(A, A),
    "37 tensor twice, two dtypes": lambda: members(A, A_AS_I32),
    "38 tensor twice, two ranges": lambda: members(A, A_FURTHER_ON, size=8),
    "39 metadata twice": lambda: members('"__metadata__":{}', '"__metadata__":{}', A),
    "40 key twice in metadata": lambda: members('"__metadata__":{"x":"1","x":"2"}', A),
    "41 metadata not a string": lambda: members('"__metadata__":{"x":1}', A),
    "42 metadata null": lambda: members('"__metadata__":null', A),
    "44 name empty": lambda: named(""),
    "45 name with NUL, newline, direction": lambda: named("a\0b\n\u202ec"),
    "46 name with half a surrogate pair": lambda: named("\ud800"),
    "47 names that look the same": lambda: named("\u00e9", "e\u0301"),
    "48 name of 1 MB": lambda: named("n" * 1_000_000),
    "49 rank 100000": lambda: one("F32", [1] * 100_000, 0, 4),
    "50 deep JSON": lambda: with_shape("[" * 200_000 + "]" * 200_000),
    "53 F4 with an odd count": lambda: one("F4", [3], 0, 2),
    "55 F4 scalar": lambda: one("F4", [], 0, 1),
    "60 100000 empty tensors of huge dims": lambda: tensors(
        {f"t{n}": entry("F32", [0, 2**62], 0, 0) for n in range(100_000)}, 0
    ),
    "63 dim as 1e0": lambda: with_shape("[1e0]"),
    "64 dim with a leading zero": lambda: with_shape("[01]"),
    "65 three offsets": lambda: members(A.replace("[0,4]", "[0,4,4]")),
    "66 byte order mark": lambda: container(b"\xef\xbb\xbf{}"),
    "67 entry as a list": lambda: tensors({"a": ["F32", [1], [0, 4]]}),
    "68 metadata alone, then bytes": lambda: members('"__metadata__":{}'),
    "metadata nested": lambda: members('"__metadata__":{"x":{"y":"z"}}', size=0),
    "dim minus zero": lambda: members(A.replace("[1]", "[-0]").replace("4", "0"), size=0),
    "dim true": lambda: with_shape("[true]"),
    "dim NaN": lambda: with_shape("[NaN]"),
    "dim of 5000 digits": lambda: with_shape(f"[{'1' * 5000}]"),
    "newline after the header": lambda: members(A, after="\n"),
    "two objects": lambda: members(A, after="{}"),
    "half a surrogate pair in metadata": lambda: container('{"__metadata__":{"x":"\\udc00"}}'),
    "name with a variation selector": lambda: named("a\ufe0f"),
    "name that does not show": lambda: named("\u3164"),
    "escapes in a name": lambda: named("a\x1b[2J\x1b]0;title\x07"),
    "escapes in a dtype": lambda: one("\x1b[2J\u202e", [1], 0, 4),
    "escapes in a field": lambda: members(A.replace("{", '{"\\u001b[2J":1,')),
    "a zip archive": lambda: empty_zip() + bytes(100),
}

TAKEN: dict[str, Case] = {
    "00 plain": lambda: one("F32", [2, 2], 0, 16),
    "13 header length unaligned": lambda: members(A, after=" "),
    "43 name like a path": lambda: named("../../etc/passwd"),
    "51 NaN and infinity": lambda: tensors(
        {"a": entry("F32", [2], 0, 8)}, struct.pack("<2f", float("nan"), float("inf"))
    ),
    "52 boolean of 2": lambda: tensors({"a": entry("BOOL", [2], 0, 2)}, b"\x02\xff"),
    "54 F4 with an odd last dim": lambda: one("F4", [2, 3], 0, 3),
    "56 F6": lambda: one("F6_E2M3", [4], 0, 3),
    "57 E8M0": lambda: one("F8_E8M0", [4], 0, 4),
    "58 C64": lambda: one("C64", [1], 0, 8),
    "59 misaligned F64": lambda: tensors(
        {"a": entry("U8", [1], 0, 1), "b": entry("F64", [1], 1, 9)}, 9
    ),
    "61 metadata of many entries": lambda: container(
        json.dumps({"__metadata__": {f"key{n}": "value" for n in range(1000)}})
    ),
    "62 zip archive in a tensor": lambda: tensors({"a": entry("U8", [22], 0, 22)}, empty_zip()),
    "no tensors": lambda: container("{}"),
    "metadata with escapes": lambda: container('{"__metadata__":{"\\u001b[2J":"\\u202e\\u0007"}}'),
    "metadata alone": lambda: container('{"__metadata__":{"a":"line\\nline"}}'),
}

# What becomes of those that are taken, where it is not that they are converted.
NOT_CONVERTED = {
    "51 NaN and infinity": 6,
    "52 boolean of 2": 6,
    "61 metadata of many entries": 5,
    "no tensors": 5,
    "metadata with escapes": 5,
    "metadata alone": 5,
}
