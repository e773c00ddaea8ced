"""Strict parser of the safetensors header: what it accepts, the safetensors library accepts too.

Source of the format: the README of safetensors 0.8 and ``Metadata::validate`` of its tensor.rs.
Stricter than both where they let through what no honest writer writes: names that stand twice
(the library silently keeps the last), names that could steer a terminal, unknown fields, white
space before the header or other than spaces after it, absurd ranks and sizes.
"""

from __future__ import annotations

import functools
import math
import reprlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from converter import strict_json
from converter.canonical import MAX_HEADER_BYTES, Placement
from converter.errors import SourceError
from converter.finding import printable
from converter.spec import DTYPES, Shape, TensorSpec

LENGTH_BYTES = 8
MAX_HEADER_MARKS = 1 << 21  # some 250,000 tensors; bounds time and memory of parsing
MAX_NAME_CHARS = 512
MAX_RANK = 8
MAX_DIM = 1 << 48

_METADATA = "__metadata__"
_DIMS = "dims that are integers from 0 to 2^48"
_INTEGER = frozenset({int})
_FIELDS = {"dtype", "shape", "data_offsets"}
# The first line of what git-lfs leaves where a file is not fetched: "version https://git-lfs…".
_POINTER = b"version "
_POINTER_HINT = "it begins as the pointer that git-lfs leaves: fetch the file with git lfs pull"


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What a safetensors file says of itself: tensors in offset order, and where data starts.

    ``data_start`` is in bytes from the start of the file; placements count from there.
    """

    tensors: tuple[Placement, ...]
    metadata: Mapping[str, str]
    data_start: int


def find_data_start(prefix: bytes, file_size: int, *, where: str) -> int:
    """Return where data starts, from the first 8 bytes of a file of ``file_size`` bytes.

    Raises SourceError when the header's length cannot be right, before anything is allocated.
    """
    if len(prefix) < LENGTH_BYTES:
        raise _malformed(
            "too short for a safetensors file", where, f"{LENGTH_BYTES} bytes or more", file_size
        )
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        expected = f"a header of {MAX_HEADER_BYTES:,} bytes or less"
        got = f"a length of {length:,}"
        raise SourceError(
            "not a safetensors file",
            code="header",
            where=where,
            expected=expected,
            got=got,
            hint=_POINTER_HINT if prefix[:LENGTH_BYTES] == _POINTER else None,
        )
    if LENGTH_BYTES + length > file_size:
        raise _malformed(
            "the file ends within its header",
            where,
            f"{LENGTH_BYTES + length:,} bytes or more",
            f"{file_size:,} bytes",
        )
    return LENGTH_BYTES + length


def parse_header(data: bytes, file_size: int, *, where: str) -> SafetensorsHeader:
    """Parse the header of a file of ``file_size`` bytes, of which ``data`` is the beginning.

    ``data`` reaches at least up to where tensor data starts (``find_data_start``); ``where`` names
    the file in errors. Raises SourceError for anything but a header that is plain in form, and
    whose tensors cover the rest of the file exactly, without a hole or an overlap.
    """
    data_start = find_data_start(data[:LENGTH_BYTES], file_size, where=where)
    text = data[LENGTH_BYTES:data_start].rstrip(b" ")
    if text[:1] != b"{":
        raise _malformed("the header does not begin with a brace", where, "{", ascii(text[:20]))
    if text[-1:] != b"}":
        what = "the header does not end with a brace and spaces"
        raise _malformed(what, where, "}", ascii(text[-20:]))
    entries = strict_json.parse(text, where=where, max_marks=MAX_HEADER_MARKS)
    assert isinstance(entries, dict)  # it begins with a brace
    metadata = _metadata(entries.pop(_METADATA, {}), where)
    tensors = [_placement(name, entry, where) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_cover(tensors, file_size - data_start, where)
    return SafetensorsHeader(tuple(tensors), metadata, data_start)


def check_name(name: str, *, where: str) -> None:
    """Check the name of a source tensor: printable, in one Unicode spelling, not too long.

    Lenient towards everything that can be read on a screen; ``canonical.TENSOR_NAME`` is the
    strict pattern for targets. Raises SourceError.
    """
    if not name or len(name) > MAX_NAME_CHARS:
        expected = f"1 to {MAX_NAME_CHARS} characters"
        raise _malformed("a tensor's name is of no fit length", where, expected, len(name))
    if printable(name) != name:
        expected = "characters that show"
        raise _malformed("a tensor's name is not fit to print", where, expected, ascii(name))
    if name == _METADATA:
        raise _malformed("a tensor's name is a reserved word", where, "another name", name)
    if not unicodedata.is_normalized("NFC", name):
        expected = "composed characters (Unicode NFC)"
        raise _malformed(
            "a tensor's name has a twin that looks the same", where, expected, ascii(name)
        )


def parse_spec(name: str, dtype: object, shape: object, *, where: str) -> TensorSpec:
    """Check dtype and shape as JSON gave them; ``name`` and ``where`` are for errors.

    Raises SourceError for an unknown dtype, a rank over 8, a dim that is no integer from 0 to 2^48,
    a size beyond 64 bits or, for dtypes narrower than a byte, not of whole bytes.
    """
    if not isinstance(dtype, str) or dtype not in DTYPES:
        expected = f"one of {' '.join(DTYPES)}"
        raise _malformed("unknown dtype", where, expected, reprlib.repr(dtype), tensor=name)
    if not isinstance(shape, list) or len(shape) > MAX_RANK:
        expected = f"a list of at most {MAX_RANK} dims"
        raise _malformed("not a shape", where, expected, reprlib.repr(shape), tensor=name)
    if not _are_integers(shape):
        raise _malformed("not a shape", where, _DIMS, reprlib.repr(shape), tensor=name)
    spec, fault = _judged(dtype, tuple(shape))
    if fault:
        what, expected, got = fault
        raise _malformed(what, where, expected, got, tensor=name)
    return spec


# Most tensors of a checkpoint have one of a few dozen shapes.
@functools.lru_cache(maxsize=1 << 12)
def _judged(dtype: str, shape: Shape) -> tuple[TensorSpec, tuple[str, str, str] | None]:
    """Return a spec, and what is wrong with it, what was expected, and what it is instead."""
    spec = TensorSpec(dtype, shape)
    if shape and not 0 <= min(shape) <= max(shape) <= MAX_DIM:
        return spec, ("not a shape", _DIMS, reprlib.repr(list(shape)))
    # The library multiplies in 64 bits, in order: an overflow counts even if a zero follows.
    bits = math.prod(filter(None, shape)) * DTYPES[dtype].bits
    if bits >= 1 << 63:
        return spec, ("too large a tensor", "fewer than 2^63 bits", str(bits))
    if bits % 8 and 0 not in shape:
        return spec, ("a tensor ends within a byte", "whole bytes", str(spec))
    return spec, None


def _placement(name: str, entry: object, where: str) -> Placement:
    check_name(name, where=where)
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        expected = "exactly dtype, shape and data_offsets"
        raise _malformed(
            "not the entry of a tensor", where, expected, reprlib.repr(entry), tensor=name
        )
    spec = parse_spec(name, entry["dtype"], entry["shape"], where=where)
    offsets = entry["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2 or not _are_integers(offsets):
        expected = "a list of two integers"
        raise _malformed("not data offsets", where, expected, reprlib.repr(offsets), tensor=name)
    begin, end = offsets
    size = spec.nbytes
    if begin < 0 or end - begin != size:
        expected = f"{size} bytes, for {spec}"
        raise _malformed(
            "data offsets that do not fit the tensor",
            where,
            expected,
            reprlib.repr(offsets),
            tensor=name,
        )
    return Placement(name, spec, begin, end)


def _metadata(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        expected = "an object of strings"
        raise _malformed(f"not metadata, at {_METADATA!r}", where, expected, reprlib.repr(value))
    return value


def _check_cover(tensors: list[Placement], data_bytes: int, where: str) -> None:
    position = 0
    for tensor in tensors:
        if tensor.begin != position:
            what = "tensors overlap" if tensor.begin < position else "bytes that no tensor covers"
            raise _malformed(
                what, where, f"begins at byte {position}", tensor.begin, tensor=tensor.name
            )
        position = tensor.end
    if position != data_bytes:
        what = "the file is truncated" if data_bytes < position else "bytes after the last tensor"
        raise _malformed(what, where, f"{position} bytes of data", data_bytes)


def _are_integers(values: list[object]) -> TypeGuard[list[int]]:
    return _INTEGER.issuperset(map(type, values))  # isinstance would let a bool pass


def _malformed(
    what: str, where: str, expected: str, got: object, *, tensor: str | None = None
) -> SourceError:
    return SourceError(
        what, code="header", where=where, tensor=tensor, expected=expected, got=str(got)
    )
