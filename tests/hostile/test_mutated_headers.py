"""Whatever our parser accepts, the safetensors library accepts too, and reads the same."""

import json
import os
import random
import re

import safetensors
from crafted_files import REFUSED, TAKEN

from converter.errors import SourceError
from converter.header import parse_header

INPUTS = int(os.environ.get("FUZZ_INPUTS", "30000"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))

NUMBERS = (
    *("0", "1", "2", "3", "4", "8", "16", "18", "20", "-1", "-0", "00", "1.0", "1e0", "0x1"),
    *("4294967296", "140737488355328", "281474976710657", "18446744073709551615"),
    *("18446744073709551616", "9" * 25, "true", "null", "NaN", "[]", '"1"'),
)
STRINGS = (
    *('"a"', '"b"', '"\u00e9"', '"\\u0061"', '"\\ud83d\\ude00"', '"\\ud800"', '"\\n"', '""', '"/"'),
    *('"F32"', '"F64"', '"BF16"', '"F4"', '"F6_E2M3"', '"BOOL"', '"C64"', '"f32"', '"F128"'),
    *('"dtype"', '"shape"', '"data_offsets"', '"__metadata__"'),
)
MARKS = (
    *("{", "}", "[", "]", ",", ":", '"', "\\", " ", "\n", "\t", "\0", "\ufeff", "[0]", "{}"),
    *('"__metadata__":{},', '"__metadata__":{"k":"v"},', '"dtype":"F32",', "[0,4]", "[4,8]"),
)
TOKEN = re.compile(rb'"[^"]*"|[0-9]+|[^"0-9]')


def seeds() -> list[tuple[bytes, int]]:
    """Headers to start from, and the bytes of data behind each."""
    plain = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b.weight": {"dtype": "BF16", "shape": [], "data_offsets": [16, 18]},
        "empty": {"dtype": "I64", "shape": [0, 3], "data_offsets": [18, 18]},
        "c": {"dtype": "F4", "shape": [4], "data_offsets": [18, 20]},
    }
    headers = [(json.dumps(plain, indent=indent).encode(), 20) for indent in (None, 1)] * 20
    for case in (*TAKEN.values(), *REFUSED.values()):
        data = case()
        end = 8 + int.from_bytes(data[:8], "little")
        if 8 < end <= len(data) < 1000:
            headers.append((data[8:end], len(data) - end))
    return headers


def mutate(header: bytes, chance: random.Random) -> bytes:
    """Change a header in one to three places, most often a word for another of its kind."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        tokens = TOKEN.findall(header) or [b" "]
        at = chance.randrange(len(tokens))
        kind = chance.randrange(12)
        if kind < 6:
            words = [n for n, token in enumerate(tokens) if token[:1].isdigit() or len(token) > 1]
            at = chance.choice(words or [0])
            tokens[at] = chance.choice(NUMBERS if tokens[at].isdigit() else STRINGS).encode()
        elif kind < 8:
            tokens.insert(at, chance.choice((b" ", b" ", b"\n", b"\t", b"\r")))
        elif kind == 8:
            tokens[at] = chance.choice(MARKS).encode()
        elif kind == 9:
            tokens[at:at] = tokens[at : at + chance.choice((1, 2, 10, 40))]
        elif kind == 10:
            del tokens[at : at + chance.choice((1, 2, 10, 40))]
        else:
            damaged = bytearray(tokens[at])
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            tokens[at] = bytes(damaged)
        header = b"".join(tokens)
    return header


def test_no_mutated_header_is_accepted_by_ours_alone() -> None:
    chance = random.Random(SEED)
    starts = seeds()
    accepted = 0
    for _ in range(INPUTS):
        header, size = chance.choice(starts)
        header = mutate(header, chance)
        size = max(0, size + chance.choice((0, 0, 0, 0, -1, 1, 4)))
        file = len(header).to_bytes(8, "little") + header + bytes(size)
        try:
            ours = parse_header(file, len(file), where="mutated")
        except SourceError:
            continue
        accepted += 1
        theirs = dict(safetensors.deserialize(file))  # type: ignore[no-untyped-call]
        assert {tensor.name for tensor in ours.tensors} == theirs.keys(), header
        for tensor in ours.tensors:
            assert tensor.spec.dtype == theirs[tensor.name]["dtype"], header
            assert list(tensor.spec.shape) == theirs[tensor.name]["shape"], header
            assert tensor.end - tensor.begin == len(theirs[tensor.name]["data"]), header
    assert accepted > INPUTS / 20, "the mutations are too coarse to say anything"
