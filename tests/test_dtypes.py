"""Every dtype of safetensors: carried to the byte, converted by value, or refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from toy import HEAD

from converter import api
from converter import manifest as manifests
from converter.errors import ConverterError
from converter.runtime import load_tensors
from converter.spec import DTYPES, TensorSpec
from converter.torch_dtypes import TORCH_DTYPES

Entry: TypeAlias = tuple[str, tuple[int, ...], bytes]

SHAPE = (4, 6)
COUNT = math.prod(SHAPE)
STEP = "a step cannot take these tensors"


@dataclass(frozen=True)
class Kind:
    """What is done with a dtype.

    ``moves``: its elements can be moved one by one; ``casts``: to and from other dtypes, and
    ``constant`` makes it; ``counts``: its values have statistics; ``loads``: torch has it.
    ``strange`` are the bytes of single values that are NaN or infinite.
    """

    moves: bool = True
    casts: bool = True
    counts: bool = True
    loads: bool = True
    strange: tuple[str, ...] = ()


PACKED = Kind(moves=False, casts=False, counts=False, loads=False)
KINDS: Mapping[str, Kind] = {
    "BOOL": Kind(counts=False),
    "F4": PACKED,
    "F6_E2M3": PACKED,
    "F6_E3M2": PACKED,
    "U8": Kind(),
    "I8": Kind(),
    "F8_E5M2": Kind(strange=("7c", "fc", "7d", "7e", "7f", "ff")),
    "F8_E4M3": Kind(strange=("7f", "ff")),
    "F8_E8M0": Kind(casts=False, strange=("ff",)),
    "F8_E4M3FNUZ": Kind(strange=("80",)),
    "F8_E5M2FNUZ": Kind(strange=("80",)),
    "I16": Kind(),
    "U16": Kind(),
    "F16": Kind(strange=("007c", "00fc", "017c", "007e")),
    "BF16": Kind(strange=("807f", "80ff", "817f", "c0ff")),
    "I32": Kind(),
    "U32": Kind(),
    "F32": Kind(strange=("0000807f", "000080ff", "0100807f", "0000c0ff")),
    "C64": Kind(casts=False, counts=False, strange=("000080ff00000000", "000000000000c07f")),
    "F64": Kind(strange=("000000000000f07f", "000000000000f0ff", "010000000000f07f")),
    "I64": Kind(),
    "U64": Kind(),
}
every_dtype = pytest.mark.parametrize("dtype", KINDS)
SINGLE = [(dtype, text) for dtype, kind in KINDS.items() for text in kind.strange]


def some_bytes(dtype: str) -> bytes:
    """The bytes of ``SHAPE`` different values, or nearly so, all of them finite."""
    if dtype == "BOOL":
        return bytes(number % 3 % 2 for number in range(COUNT))
    if dtype not in TORCH_DTYPES:
        return bytes(range(200, 200 + TensorSpec(dtype, SHAPE).nbytes))
    numbers = torch.arange(1, COUNT + 1, dtype=torch.float32)
    values = numbers.exp2() if dtype == "F8_E8M0" else numbers
    return bytes(values.to(TORCH_DTYPES[dtype]).view(torch.uint8).numpy())


def write(folder: Path, entries: Mapping[str, Entry]) -> Path:
    """Write a checkpoint from dtypes, shapes and bytes, whatever a library knows of them."""
    header, data = {}, b""
    for name, (dtype, shape, content) in entries.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path = folder / "in.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def convert(folder: Path, entries: Mapping[str, Entry], rules: str, **options: Any) -> Path:
    source, path = write(folder, entries), folder / "rules.yaml"
    path.write_text(HEAD + rules)
    return api.convert(source, folder / "out", rules=path, jobs=1, **options).out


def made(out: Path) -> dict[str, bytes]:
    """The bytes of every canonical tensor, of a directory that holds and is loaded."""
    assert api.verify(out).holds
    manifest = manifests.load((out / "manifest.json").read_bytes())
    data = (out / "model.safetensors").read_bytes()
    found = {t.name: data[t.offset : t.offset + t.size] for t in manifest.tensors}
    if all(KINDS[tensor.dtype].loads for tensor in manifest.tensors):
        loaded = load_tensors(out, device="cpu", check="full")
        for record in manifest.tensors:
            tensor = loaded[record.name]
            assert (tensor.dtype, tuple(tensor.shape)) == (TORCH_DTYPES[record.dtype], record.shape)
            assert bytes(tensor.reshape(-1).view(torch.uint8).numpy()) == found[record.name]
    else:
        with pytest.raises(ConverterError, match="torch has no such dtype") as caught:
            load_tensors(out, device="cpu")
        assert caught.value.exit_code == 6
    return found


def refused(folder: Path, entries: Mapping[str, Entry], rules: str, **options: Any) -> str:
    """The exit code and the fact with which a conversion is refused, leaving nothing."""
    with pytest.raises(ConverterError) as caught:
        convert(folder, entries, rules, **options)
    assert not (folder / "out").exists()
    return f"{caught.value.exit_code}: {caught.value.findings[0].what}"


def one(dtype: str, steps: str = "", shape: str = "[4, 6]", more: str = "") -> str:
    listed = f"    steps: [{steps}]\n" if steps else ""
    rule = f"  - from: w\n{listed}    to: {{w: {shape}}}\n"
    return f"dtypes: [{dtype}]\nrules:\n{rule}{more}"


def test_the_table_has_every_dtype() -> None:
    assert KINDS.keys() == DTYPES.keys()
    assert {dtype for dtype, kind in KINDS.items() if kind.loads} == TORCH_DTYPES.keys()


# Carried


@every_dtype
def test_it_is_renamed_to_the_byte(tmp_path: Path, dtype: str) -> None:
    content = some_bytes(dtype)
    rules = f"dtypes: [{dtype}]\nrules:\n  - {{from: w, to: {{renamed: [4, 6]}}}}\n"
    out = convert(tmp_path, {"w": (dtype, SHAPE, content)}, rules)
    assert made(out) == {"renamed": content}
    (record,) = manifests.load((out / "manifest.json").read_bytes()).tensors
    assert (record.dtype, record.shape) == (dtype, SHAPE)
    assert (record.stats is not None) == KINDS[dtype].counts


@every_dtype
def test_one_without_elements_is_carried(tmp_path: Path, dtype: str) -> None:
    out = convert(tmp_path, {"w": (dtype, (0, 6), b"")}, one(dtype, shape="[0, 6]"))
    assert made(out) == {"w": b""}


@every_dtype
def test_it_is_described_and_planned_without_its_bytes(tmp_path: Path, dtype: str) -> None:
    source = write(tmp_path, {"w": (dtype, SHAPE, some_bytes(dtype))})
    (tmp_path / "rules.yaml").write_text(HEAD + one(dtype))
    assert api.inspect(source).header == {"w": TensorSpec(dtype, SHAPE)}
    assert api.plan(source, rules=tmp_path / "rules.yaml").targets == {
        "w": TensorSpec(dtype, SHAPE)
    }


@every_dtype
def test_a_dtype_that_the_rules_do_not_list_is_refused(tmp_path: Path, dtype: str) -> None:
    other = "I64" if dtype != "I64" else "F32"
    entries = {"w": (dtype, SHAPE, some_bytes(dtype))}
    assert refused(tmp_path, entries, one(other)).startswith("5: ")


# Moved


MOVES = """
rules:
  - from: w
    steps:
      - split: {dim: 0, sizes: [1, 3]}
      - concat: {dim: 0}
      - chunk: {dim: 1, chunks: 2}
      - transpose
      - stack: {dim: 1}
      - permute: {dims: [2, 1, 0]}
      - unstack: {dim: 1}
      - unsqueeze: {dim: 1}
      - squeeze: {dim: 1}
      - concat: {dim: 1}
      - reorder_chunks: {dim: 0, order: [1, 0]}
      - reshape: {shape: [3, 8]}
      - slice: {dim: 1, start: 1, stop: 7, because: it is a test}
    to: {w: [3, 6]}
"""


def moved(elements: np.ndarray) -> np.ndarray:
    """What ``MOVES`` do, by numpy, which is told no more than the size of an element."""
    halves = [half.T for half in np.split(elements, 2, axis=1)]
    stacked = np.stack(halves, axis=1).transpose(2, 1, 0)
    joined = np.concatenate([stacked[:, 0], stacked[:, 1]], axis=1)
    return np.concatenate([joined[2:], joined[:2]]).reshape(3, 8)[:, 1:7]


@every_dtype
def test_its_elements_are_moved_or_it_is_refused(tmp_path: Path, dtype: str) -> None:
    content = some_bytes(dtype)
    entries, rules = {"w": (dtype, SHAPE, content)}, f"dtypes: [{dtype}]{MOVES}"
    if KINDS[dtype].moves:
        elements = np.frombuffer(content, f"V{DTYPES[dtype].bits // 8}").reshape(SHAPE)
        assert made(convert(tmp_path, entries, rules)) == {"w": moved(elements).tobytes()}
    else:
        fact = f"5: {STEP}: split: elements of {dtype} are smaller than a byte and cannot be moved"
        assert refused(tmp_path, entries, rules) == fact


def test_a_source_of_several_dtypes_is_moved_by_rows_and_runs(tmp_path: Path) -> None:
    rules = "dtypes: [U8, F16, F8_E8M0]\nrules:\n" + "".join(
        f"  - {{from: {name}, steps: [transpose], to: {{{name}: [6, 4]}}}}\n" for name in "abc"
    )
    entries: dict[str, Entry] = {
        name: (dtype, SHAPE, some_bytes(dtype))
        for name, dtype in zip("abc", ("U8", "F16", "F8_E8M0"), strict=True)
    }
    found = made(convert(tmp_path, entries, rules))
    for name, (dtype, shape, content) in entries.items():
        elements = np.frombuffer(content, f"V{DTYPES[dtype].bits // 8}").reshape(shape)
        assert found[name] == elements.T.tobytes()


# Converted


@every_dtype
def test_it_is_cast_by_value_or_refused(tmp_path: Path, dtype: str) -> None:
    content = some_bytes(dtype)
    entries = {"w": (dtype, SHAPE, content)}
    rules = one(dtype, "cast: {dtype: F64}")
    if KINDS[dtype].casts:
        found = np.frombuffer(made(convert(tmp_path, entries, rules))["w"], "<f8")
        values = torch.frombuffer(bytearray(content), dtype=TORCH_DTYPES[dtype])
        assert found.tolist() == [float(value) for value in values.tolist()]
    else:
        fact = refused(tmp_path, entries, rules)
        assert (fact[0], fact.endswith(f": cast: {dtype} cannot be cast")) == ("3", True)


@every_dtype
def test_values_are_cast_to_it_or_it_is_refused(tmp_path: Path, dtype: str) -> None:
    bits = torch.tensor([0.0, 1.0] * 12).numpy().tobytes()
    entries, rules = {"w": ("F32", SHAPE, bits)}, one("F32", f"cast: {{dtype: {dtype}}}")
    if KINDS[dtype].casts:
        data = made(convert(tmp_path, entries, rules))["w"]
        values = torch.frombuffer(bytearray(data), dtype=TORCH_DTYPES[dtype])
        assert [float(value) for value in values.tolist()] == [0.0, 1.0] * 12
    else:
        assert refused(tmp_path, entries, rules) == f"3: cast: {dtype!r} is no dtype of numbers"


@every_dtype
def test_the_dtype_of_the_command_line_casts_floats_alone(tmp_path: Path, dtype: str) -> None:
    content = some_bytes(dtype)
    entries = {"w": (dtype, SHAPE, content)}
    if DTYPES[dtype].kind != "float":
        assert made(convert(tmp_path, entries, one(dtype), dtype="bf16")) == {"w": content}
    elif KINDS[dtype].casts:
        data = made(convert(tmp_path, entries, one(dtype), dtype="bf16"))["w"]
        found = torch.frombuffer(bytearray(data), dtype=torch.bfloat16)
        values = torch.frombuffer(bytearray(content), dtype=TORCH_DTYPES[dtype])
        assert found.tolist() == [float(value) for value in values.tolist()]
    else:
        fact = f"5: {STEP}: cast: {dtype} cannot be cast"
        assert refused(tmp_path, entries, one(dtype), dtype="bf16") == fact
        kept = one(dtype, more="    keep_dtype: true\n")
        assert made(convert(tmp_path, entries, kept, dtype="bf16")) == {"w": content}


SATURATE = "cast: {dtype: %s, overflow: saturate, because: outliers of no weight}"


@pytest.mark.parametrize("dtype", [d for d, kind in KINDS.items() if kind.casts and d != "F64"])
def test_what_overflows_it_is_refused_unless_the_rule_says_so(tmp_path: Path, dtype: str) -> None:
    far = np.array([1.0, -1e300, 1e300, 0.0], "<f8").tobytes()
    entries = {"w": ("F64", (4,), far)}
    plain = one("F64", f"cast: {{dtype: {dtype}}}", "[4]")
    assert refused(tmp_path, entries, plain).startswith("6: cast: 2 of 4 values ")
    if dtype == "BOOL":
        fact = "3: cast: booleans do not saturate"
        assert refused(tmp_path, entries, one("F64", SATURATE % dtype, "[4]")) == fact
        return
    out = convert(tmp_path, entries, one("F64", SATURATE % dtype, "[4]"))
    raw = torch.frombuffer(bytearray(made(out)["w"]), dtype=TORCH_DTYPES[dtype])
    limits = torch.finfo if DTYPES[dtype].kind == "float" else torch.iinfo
    first, last = limits(raw.dtype).min, limits(raw.dtype).max
    assert raw.tolist() == [1, first, last, 0]
    (record,) = manifests.load((out / "manifest.json").read_bytes()).tensors
    cast = {"dtype": dtype, "overflow": "saturate", "because": "outliers of no weight"}
    assert record.steps == ({"cast": cast},)


@pytest.mark.parametrize(
    "step",
    [
        "cast: {dtype: F16, overflow: saturate}",
        "cast: {dtype: F16, because: it is not asked for}",
        "cast: {dtype: F16, overflow: wrap, because: it wraps}",
        "cast: {dtype: F16, overflow: saturate, because: ' '}",
    ],
)
def test_a_cast_saturates_by_one_word_and_with_a_reason(tmp_path: Path, step: str) -> None:
    entries = {"w": ("F32", SHAPE, some_bytes("F32"))}
    fact = refused(tmp_path, entries, one("F32", step))
    assert fact.startswith("3: rules.0.steps.0.cast")


@every_dtype
def test_it_is_filled_with_a_constant_or_refused(tmp_path: Path, dtype: str) -> None:
    rules = (
        f"dtypes: [{dtype}]\nrules:\n  - {{from: w, to: {{w: [4, 6]}}}}\n"
        f"  - steps: [constant: {{value: 1, shape: [2], dtype: {dtype}}}]\n    to: {{c: [2]}}\n"
    )
    entries = {"w": (dtype, SHAPE, some_bytes(dtype))}
    if KINDS[dtype].casts:
        data = made(convert(tmp_path, entries, rules))["c"]
        values = torch.frombuffer(bytearray(data), dtype=TORCH_DTYPES[dtype])
        assert [float(value) for value in values.tolist()] == [1.0, 1.0]
    else:
        fact = f"3: constant: {dtype!r} is no dtype of numbers"
        assert refused(tmp_path, entries, rules) == fact


@every_dtype
@pytest.mark.parametrize("fill", ["zeros", "ones"])
def test_it_stands_in_for_what_is_absent_or_is_refused(
    tmp_path: Path, dtype: str, fill: str
) -> None:
    rules = (
        f"dtypes: [{dtype}]\nrules:\n  - {{from: w, to: {{w: [4, 6]}}}}\n"
        f"  - from: v\n    absent: {{fill: {fill}, dtype: {dtype}}}\n    to: {{v: [2]}}\n"
    )
    entries = {"w": (dtype, SHAPE, some_bytes(dtype))}
    if KINDS[dtype].casts:
        data = made(convert(tmp_path, entries, rules))["v"]
        values = torch.frombuffer(bytearray(data), dtype=TORCH_DTYPES[dtype])
        assert [float(value) for value in values.tolist()] == [float(fill == "ones")] * 2
    else:
        fact = f"3: no {fill} of {dtype} can be made to stand in for an absent tensor"
        assert refused(tmp_path, entries, rules) == fact


# NaN and infinity


@pytest.mark.parametrize(("dtype", "value"), SINGLE)
@pytest.mark.parametrize("steps", ["", "transpose"], ids=["as it is", "moved"])
def test_nan_and_infinity_are_refused_unless_allowed(
    tmp_path: Path, dtype: str, value: str, steps: str
) -> None:
    single = bytes.fromhex(value)
    content = some_bytes(dtype)[: -len(single)] + single
    entries = {"w": (dtype, SHAPE, content)}
    rules = one(dtype, steps, "[6, 4]" if steps else "[4, 6]")
    assert refused(tmp_path, entries, rules) == "6: the tensor holds NaN or infinity"
    out = convert(tmp_path, entries, rules + "allow_nan: [w]\n")
    assert made(out)["w"].endswith(single)
    (record,) = manifests.load((out / "manifest.json").read_bytes()).tensors
    assert record.stats is None or record.stats.nonfinite == 1


@every_dtype
def test_no_other_bytes_of_a_narrow_dtype_are_nan(tmp_path: Path, dtype: str) -> None:
    if DTYPES[dtype].bits > 8 or dtype == "BOOL":
        return
    strange = bytes.fromhex("".join(KINDS[dtype].strange))
    content = bytes(byte for byte in range(256) if byte not in strange)
    count = len(content) * 8 // DTYPES[dtype].bits // 4 * 4
    content = content[: count * DTYPES[dtype].bits // 8]
    shape = (count,)
    out = convert(tmp_path, {"w": (dtype, shape, content)}, one(dtype, shape=f"[{count}]"))
    assert made(out) == {"w": content}


# Booleans


@pytest.mark.parametrize("byte", [2, 128, 255])
@pytest.mark.parametrize(
    ("steps", "shape"),
    [("", "[4, 6]"), ("transpose", "[6, 4]"), ("cast: {dtype: U8}", "[4, 6]")],
)
def test_a_byte_that_is_no_boolean_is_refused(
    tmp_path: Path, byte: int, steps: str, shape: str
) -> None:
    entries = {"w": ("BOOL", SHAPE, some_bytes("BOOL")[:-1] + bytes([byte]))}
    fact = "6: a boolean tensor holds bytes other than 0 and 1"
    assert refused(tmp_path, entries, one("BOOL", steps, shape)) == fact


# What is dropped


@every_dtype
def test_what_is_dropped_may_be_of_any_dtype(tmp_path: Path, dtype: str) -> None:
    entries: dict[str, Entry] = {
        "w": ("F32", (1,), bytes(4)),
        "d": (dtype, SHAPE, some_bytes(dtype)),
        "e": (dtype, SHAPE, some_bytes(dtype)),
    }
    drops = "drop:\n  - {name: d, because: no use}\n"
    equal = "  - {name: e, expect: {equals: d}, because: the same}\n"
    rules = one("F32", shape="[1]") + drops
    assert set(made(convert(tmp_path, entries, rules + equal))) == {"w"}
    (tmp_path / "second").mkdir()
    ramp = "  - {name: e, expect: arange, because: a ramp}\n"
    fact = "6: a tensor that would be dropped is not what the rule says it is"
    if not KINDS[dtype].moves:
        fact = "5: a tensor that would be dropped cannot be arange"
    assert refused(tmp_path / "second", entries, rules + ramp) == fact
