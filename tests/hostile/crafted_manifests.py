"""Manifests and bundle records that this package never wrote: each an edit of one that it did."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from converter.canonical import MANIFEST_NAME, SUMS_NAME
from converter.digest import sha256

Edit: TypeAlias = Callable[[bytes], bytes]

DEEP = 100_000


def replaced(old: str, new: str) -> Edit:
    """Put ``new`` in the place of the first ``old``, which must be there."""

    def edit(text: bytes) -> bytes:
        assert old.encode() in text
        return text.replace(old.encode(), new.encode(), 1)

    return edit


def everywhere(old: str, new: str) -> Edit:
    """Put ``new`` in the place of every ``old``."""
    return lambda text: text.replace(old.encode(), new.encode())


def value(member: str, new: str) -> Edit:
    """Give the first member of this name another value, which was text or a number."""
    pattern = re.compile(rf'"{member}": (?:"[^"]*"|[0-9.]+)'.encode())

    def edit(text: bytes) -> bytes:
        changed = pattern.sub(lambda _: f'"{member}": {new}'.encode(), text, count=1)
        assert changed != text
        return changed

    return edit


def in_file(name: str) -> Edit:
    """Have the manifest name its weights file so, consistently."""
    return everywhere('"model.safetensors"', f'"{name}"')


FILE_NAMES = (
    *("../model.safetensors", "/etc/passwd", "a/../../b.safetensors", "C:\\\\x.safetensors"),
    *("model.safetensors\\u0000", "CON", ".", "..", "", "model\\u2215x.safetensors", "\\ud800"),
    *("model.safetensors\\u001b[2J", "\\u202emodel.safetensors", "MODEL.SAFETENSORS", "SHA256SUMS"),
    *("model-00001-of-00002.safetensors", "manifest.json", "//x/y.safetensors", "~/m.safetensors"),
)

MANIFESTS: dict[str, Edit] = {
    "empty": lambda text: b"",
    "cut short": lambda text: text[: len(text) // 2],
    "not UTF-8": lambda text: b"\xff" + text,
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "a list": lambda text: b"[" + text + b"]",
    "null": lambda text: b"null",
    "bytes after the end": lambda text: text + b"\0",
    "a second object": lambda text: text + text,
    "CR LF": everywhere("\n", "\r\n"),
    "other indentation": everywhere("\n  ", "\n   "),
    "a key twice": replaced('"format": 1,', '"format": 1, "format": 1,'),
    "an escaped key twice": replaced('"format": 1,', '"format": 1, "f\\u006frmat": 1,'),
    "a tensor twice": replaced('"tensors": {', '"tensors": {"mask": {}, "mask": {},'),
    "an unknown member": replaced('"format": 1,', '"format": 1, "evil": true,'),
    "a member less": replaced(' "out_of_scope": 1,\n', ""),
    "format 2": value("format", "2"),
    "format 1.0": value("format", "1.0"),
    "format true": value("format", "true"),
    "format as text": value("format", '"1"'),
    "format nested deeply": value("format", "[" * 900 + "]" * 900),
    "format of 5000 digits": value("format", "1" * 5000),
    "NaN": value("mean", "NaN"),
    "infinity": value("mean", "-Infinity"),
    "beyond a double": value("mean", "1e999"),
    "an integer for a float": value("mean", "1"),
    "minus zero": value("offset", "-0"),
    "a negative size": replaced('"size": 64,', '"size": -64,'),
    "a size of 2^64": replaced('"size": 64,', f'"size": {1 << 64},'),
    "a size of 5000 digits": value("size", "9" * 5000),
    "a size as text": replaced('"size": 64,', '"size": "64",'),
    "a size that is true": replaced('"size": 64,', '"size": true,'),
    "an offset beyond the file": value("offset", str(1 << 62)),
    "a digest in capitals": value("sha256", f'"{"A" * 64}"'),
    "a digest too short": value("sha256", '"00"'),
    "a digest too long": replaced('"size": 64, "sha256": "', '"size": 64, "sha256": "0'),
    "a digest of another": lambda text: re.sub(
        rb'("size": 64, "sha256": ")[0-9a-f]+', rb"\g<1>" + b"0" * 64, text, count=1
    ),
    "a digest of nothing": value("header_sha256", f'"{"0" * 64}"'),
    "a dtype that is none": value("dtype", '"F31"'),
    "a dtype with escapes": value("dtype", '"\\u001b[2J"'),
    "rank 100000": replaced('"shape": [4, 4]', f'"shape": [{", ".join(["1"] * 100_000)}]'),
    "dims of 20 digits": replaced('"shape": [4, 4]', f'"shape": [{", ".join(["9" * 20] * 5000)}]'),
    "a shape that overflows": replaced('"shape": [4, 4]', f'"shape": [{1 << 47}, {1 << 47}]'),
    "half a byte": replaced('"dtype": "F32", "shape": [4]', '"dtype": "F4", "shape": [5]'),
    "nested deeply": replaced('"dims": {', f'"dims": {{"deep": {"[" * DEEP}{"]" * DEEP}, '),
    "nested as can be": replaced('"dims": {', f'"dims": {{"d": {"[" * 900}{"]" * 900}, '),
    "stuffed": replaced('"dims": {', f'"dims": {{"d": [{"1, " * 4_300_000}1], '),
    "text of 17 MB beyond ASCII": value("title", f'"\u00e9{"x" * (17 << 20)}"'),
    "escapes of 17 MB": value("title", '"' + "\\u00e9" * (3 << 20) + '"'),
    "a name with escapes": everywhere('"mask"', '"mask\\u001b[2J\\u202e"'),
    "a name beyond ASCII": everywhere('"mask"', '"m\\u00e4sk"'),
    "a name that is a path": everywhere('"mask"', '"../mask"'),
    "a name of 1 MB": everywhere('"mask"', f'"{"m" * 1_000_000}"'),
    "a reserved name": everywhere('"mask"', '"__metadata__"'),
    "an alias of itself": replaced('"head.weight": "embedding.weight"', '"head": "head"'),
    "an alias of nothing": replaced('"head.weight": "embedding.weight"', '"head": "nowhere"'),
    "an alias that is stored": replaced('"head.weight": "emb', '"mask": "emb'),
    "pieces of what has none": replaced(
        '"sources": ["', f'"pieces": ["{"0" * 64}"], "sources": ["'
    ),
    "no files": lambda text: re.sub(rb'"files": \[.*?\n \]', b'"files": []', text, flags=re.S),
    "a tensor in no file": replaced('"file": "model.s', '"file": "nowhere.s'),
    "a tensor in a file of 1 MB": replaced('"file": "model.s', f'"file": "{"m" * 1_000_000}.s'),
    **{f"file {name}": in_file(name) for name in FILE_NAMES},
}

BUNDLE_RECORDS: dict[str, Edit] = {
    "empty": MANIFESTS["empty"],
    "byte order mark": MANIFESTS["byte order mark"],
    "a key twice": replaced('"format": 1,', '"format": 1, "format": 1,'),
    "an unknown member": replaced('"format": 1,', '"format": 1, "evil": true,'),
    "format 2": value("format", "2"),
    "format nested deeply": value("format", "[" * 900 + "]" * 900),
    "nested deeply": replaced('"sources": {', f'"sources": {{"deep": {"[" * DEEP}{"]" * DEEP}, '),
    "a size of 5000 digits": value("size", "9" * 5000),
    **{
        f"member {name}": replaced('"members": {\n  "', f'"members": {{\n  "{name}')
        for name in ("../", "/", "C:", "a/", "..", "\\u0000", "\\u001b[2J", " ", "A")
    },
}


def write_manifest(directory: Path, text: bytes) -> None:
    """Write a manifest, and ``SHA256SUMS`` as if nothing else had changed."""
    (directory / MANIFEST_NAME).write_bytes(text)
    path = directory / SUMS_NAME
    lines = path.read_text().splitlines()
    line = f"{sha256(text)}  {MANIFEST_NAME}"
    path.write_text("\n".join(line if MANIFEST_NAME in old else old for old in lines) + "\n")
