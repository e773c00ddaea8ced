"""Damage to texts: mostly one word for another of its kind, so that much of it goes deep."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """What to put in the place of what: numbers for numbers, texts for texts, marks anywhere."""

    token: re.Pattern[bytes]
    numbers: Sequence[str]
    texts: Sequence[str]
    marks: Sequence[str]


JSON = Words(
    token=re.compile(rb'"[^"]*"|[0-9]+|[^"0-9]|"'),
    numbers=(
        *("0", "1", "2", "3", "4", "8", "16", "18", "20", "-1", "-0", "00", "1.0", "1e0", "0x1"),
        *("4294967296", "140737488355328", "281474976710657", "18446744073709551615"),
        *("18446744073709551616", "9" * 25, "true", "null", "NaN", "[]", '"1"', "0.5", "1e999"),
    ),
    texts=(
        *('"a"', '"b"', '"\u00e9"', '"\\u0061"', '"\\ud83d\\ude00"', '"\\ud800"', '"\\n"', '""'),
        *('"F32"', '"F64"', '"BF16"', '"F4"', '"F6_E2M3"', '"BOOL"', '"C64"', '"f32"', '"F128"'),
        *('"dtype"', '"shape"', '"data_offsets"', '"__metadata__"', '"/"', '"../a.safetensors"'),
        *('"a.safetensors"', '"CON.safetensors"', '"a\u2215b.safetensors"', '"\\u001b[2J"'),
        *('"file"', '"sha256"', '"offset"', f'"{"0" * 64}"', "[]", "{}", "null", "1", "1.5"),
    ),
    marks=(
        *("{", "}", "[", "]", ",", ":", '"', "\\", " ", "\n", "\t", "\0", "\ufeff", "[0]", "{}"),
        *('"__metadata__":{},', '"__metadata__":{"k":"v"},', '"dtype":"F32",', "[0,4]", "[4,8]"),
        *("[" * 300, '{"a":' * 300, "[[0]],", '"a": {"a": {"a": 1}},', "\x1b", "\u202e", "9" * 400),
    ),
)
YAML = Words(
    token=re.compile(rb"[A-Za-z_]+|[0-9]+|\s+|[^A-Za-z0-9_\s]"),
    numbers=(
        *("0", "1", "2", "3", "7", "100", "1000000", "10**12", "9**9**9", "-1", "007", "1_0"),
        *("1e5", "1:30", "0x1f", "9" * 25, "9" * 400, "2**62", "1.5", "true", "null", ".inf"),
        *("n", "i", "hidden", "sum(r)", "len(hidden)", "hidden[0]", "1 // 0", "0..10**9", "5..2"),
    ),
    texts=(
        *("a", "b", "i", "layers", "hidden", "weight", "from", "to", "steps", "drop", "when"),
        *("index", "dims", "sets", "split", "chunk", "stack", "constant", "expect", "count"),
        *("optional", "absent", "zeros", "gather", "scatter", "dtypes", "F32", "BF16", "because"),
        *("allow_nan", "derived", "require", "that", "scope", "except", "variants", "cast"),
        *("no", "on", "\u00e9", '"\\u202e"', "{i}", '"{i}"', '"{i}.{j}"', "[]", "{}", "'*'", "**"),
        *(
            "alias",
            "dtype",
            "model",
            "gpt",
            "../../x.yaml",
            "x" * 600,
            "reshape",
            "transpose",
            "slice",
        ),
    ),
    marks=(
        *("{", "}", "[", "]", ",", ": ", '"', "'", "\\", " ", "\n", "\t", "\0", "\ufeff", "- "),
        *("&a ", "*a", "<<: *a", "!!int ", "!x ", "---\n", "...\n", "%YAML 1.1\n", "# ", "| "),
        *("? ", "@", "`", "[" * 50, "{a: " * 50, "\u2028", "\x1b[2J", "\x85", "\u202e", "..", "**"),
    ),
)

EXPRESSION = Words(
    token=re.compile(rb"[A-Za-z_]+|[0-9]+|[^A-Za-z0-9_]"),
    numbers=(
        *("0", "1", "2", "3", "64", "65", "255", "007", "1_000", "0x1f", "1e5", "1.5", "1j"),
        *("9" * 20, "9" * 480, "4611686018427387904", "9**9**9", "n", "r", "(1)", "[1]"),
    ),
    texts=(
        *(
            "n",
            "one",
            "zero",
            "r",
            "d",
            "e",
            "sum",
            "len",
            "prod",
            "min",
            "max",
            "and",
            "or",
            "not",
        ),
        *("is", "in", "lambda", "True", "None", "__import__", "n.n", "a.b", "\u00e9", "not"),
    ),
    marks=(
        *("+", "-", "*", "//", "/", "%", "**", "(", ")", "[", "]", ",", "<", ">", "==", "!=", "<="),
        *("=", " ", "\n", "\t", "\0", ".", "..", ":", ";", "'", '"', "(" * 90, "-" * 300, "[" * 90),
        *(")" * 90, "1+" * 240, "**2" * 120, "# ", "\\", "@", "~", "&", "{", "}", "\u2028"),
    ),
)


def mutate(text: bytes, chance: random.Random, words: Words) -> bytes:
    """Change a text in one to three places."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        tokens = words.token.findall(text) or [b" "]
        at = chance.randrange(len(tokens))
        kind = chance.randrange(12)
        if kind < 6:
            said = [n for n, token in enumerate(tokens) if token[:1].isalnum() or len(token) > 1]
            at = chance.choice(said or [0])
            others = words.numbers if tokens[at].isdigit() else words.texts
            tokens[at] = chance.choice(others).encode()
        elif kind < 8:
            tokens.insert(at, chance.choice((b" ", b" ", b"\n", b"\t", b"\r")))
        elif kind == 8:
            tokens[at] = chance.choice(words.marks).encode()
        elif kind == 9:
            tokens[at:at] = tokens[at : at + chance.choice((1, 2, 10, 40))]
        elif kind == 10:
            del tokens[at : at + chance.choice((1, 2, 10, 40))]
        else:
            damaged = bytearray(tokens[at])
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            tokens[at] = bytes(damaged)
        text = b"".join(tokens)
    return text
