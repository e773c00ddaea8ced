"""The parser's own edges; tests/hostile holds the crafted files and the library as a judge."""

import json
import time
from collections.abc import Mapping

import pytest

from converter import header
from converter.canonical import MAX_HEADER_BYTES, Placement
from converter.errors import SourceError
from converter.header import (
    SafetensorsHeader,
    check_name,
    find_data_start,
    parse_header,
    parse_spec,
)
from converter.spec import DTYPES, TensorSpec


def parse(text: str, data_bytes: int) -> SafetensorsHeader:
    encoded = text.encode()
    data = len(encoded).to_bytes(8, "little") + encoded
    return parse_header(data, len(data) + data_bytes, where="model.safetensors")


def entry(begin: int, end: int, dtype: str = "U8", shape: object = None) -> Mapping[str, object]:
    shape = [end - begin] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refusal(text: str, data_bytes: int) -> str:
    with pytest.raises(SourceError) as caught:
        parse(text, data_bytes)
    (finding,) = caught.value.findings
    assert finding.where == "model.safetensors"
    assert finding.expected
    assert finding.got
    return str(caught.value)


def test_tensors_come_in_the_order_of_their_data_and_metadata_as_it_is() -> None:
    text = json.dumps(
        {
            "b": entry(3, 5),
            "__metadata__": {"format": "pt", "note": "line\nline"},
            "a": entry(0, 3),
            "z": entry(3, 3, "F32", [0, 7]),
            "y": entry(3, 3, "I64", [0]),
        }
    )
    parsed = parse(text + "   ", 5)
    assert parsed.tensors == (
        Placement("a", TensorSpec("U8", (3,)), 0, 3),
        Placement("z", TensorSpec("F32", (0, 7)), 3, 3),
        Placement("y", TensorSpec("I64", (0,)), 3, 3),
        Placement("b", TensorSpec("U8", (2,)), 3, 5),
    )
    assert parsed.metadata == {"format": "pt", "note": "line\nline"}
    assert parsed.data_start == 8 + len(text) + 3


def test_a_file_without_tensors_is_plain() -> None:
    assert parse("{}", 0) == SafetensorsHeader((), {}, 10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_known(dtype: str) -> None:
    size = 8 * DTYPES[dtype].bits // 8
    parsed = parse(json.dumps({"a": entry(0, size, dtype, [2, 4])}), size)
    assert parsed.tensors[0].spec == TensorSpec(dtype, (2, 4))


def test_the_length_of_the_header_is_checked_before_anything_is_read() -> None:
    assert find_data_start((100).to_bytes(8, "little"), 108, where="x") == 108
    for prefix, file_size, what in [
        (b"", 0, "too short"),
        (b"1234567", 7, "too short"),
        ((101).to_bytes(8, "little"), 108, "ends within its header"),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little"), 1 << 40, "not a safetensors file"),
        (b"\xff" * 8, 1 << 40, "not a safetensors file"),
        (b"PK\x03\x04\x00\x00\x08\x08", 1 << 30, "not a safetensors file"),
    ]:
        with pytest.raises(SourceError, match=what):
            find_data_start(prefix, file_size, where="x")


def test_the_pointer_that_git_lfs_leaves_is_told() -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 438007537\n"
    with pytest.raises(SourceError, match="git lfs pull"):
        find_data_start(pointer[:8], len(pointer), where="x")


def test_a_hole_an_overlap_and_a_wrong_end_are_told_apart() -> None:
    two = {"a": entry(0, 4), "b": entry(6, 8)}
    assert "bytes that no tensor covers" in refusal(json.dumps(two), 8)
    two["b"] = entry(2, 6)
    assert "tensors overlap" in refusal(json.dumps(two), 6)
    two["b"] = entry(4, 6)
    assert "truncated" in refusal(json.dumps(two), 5)
    assert "bytes after the last tensor" in refusal(json.dumps(two), 7)


def test_a_refusal_says_what_where_expected_and_got() -> None:
    text = refusal(json.dumps({"model.weight": entry(0, 8, "F32", [3])}), 8)
    assert text == (
        "model.safetensors: data offsets that do not fit the tensor\n"
        "  tensor:   model.weight\n"
        "  expected: 12 bytes, for F32 [3]\n"
        "  got:      [0, 8]"
    )


@pytest.mark.parametrize(
    "name", ["a", "layers.0.weight", "net/cfm:0", "../../etc/passwd", "é", "重み", "a b", "n" * 512]
)
def test_a_name_that_can_be_read_is_taken_from_a_source(name: str) -> None:
    check_name(name, where="x")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "n" * 513,
        "a\0",
        "a\nb",
        "\x1b[2J",
        "a\u202eb",
        "a\u200bb",
        "\u00a0",
        "e\u0301",
        "\u212b",
        "a\ufe0f",
        "\u3164",
        "\ud800",
        "__metadata__",
    ],
)
def test_a_name_that_could_mislead_is_refused_and_printed_in_ascii(name: str) -> None:
    with pytest.raises(SourceError) as caught:
        check_name(name, where="x")
    assert str(caught.value).isascii()
    assert str(caught.value).count("\n") == 2


@pytest.mark.parametrize(
    ("dtype", "shape", "what"),
    [
        ("F128", [1], "unknown dtype"),
        ("f32", [1], "unknown dtype"),
        (["F32"], [1], "unknown dtype"),
        ("F32", None, "not a shape"),
        ("F32", {"0": 1}, "not a shape"),
        ("F32", [1] * 9, "not a shape"),
        ("F32", [True], "not a shape"),
        ("F32", [1.0], "not a shape"),
        ("F32", ["1"], "not a shape"),
        ("F32", [-1], "not a shape"),
        ("F32", [(1 << 48) + 1], "not a shape"),
        ("F32", [1 << 40, 1 << 40], "too large"),
        ("F32", [1 << 40, 1 << 40, 0], "too large"),
        ("F4", [3], "ends within a byte"),
        ("F6_E2M3", [2], "ends within a byte"),
        ("F4", [], "ends within a byte"),
    ],
)
def test_what_is_no_spec_is_refused(dtype: object, shape: object, what: str) -> None:
    with pytest.raises(SourceError, match=what):
        parse_spec("a", dtype, shape, where="x")


@pytest.mark.parametrize(
    ("dtype", "shape", "nbytes"),
    [("F4", (2, 3), 3), ("F6_E3M2", (4,), 3), ("F4", (0, 3), 0), ("F32", (1 << 48, 0), 0)],
)
def test_odd_but_whole_specs_are_taken(dtype: str, shape: tuple[int, ...], nbytes: int) -> None:
    spec = parse_spec("a", dtype, list(shape), where="x")
    assert (spec.shape, spec.nbytes) == (shape, nbytes)


@pytest.mark.parametrize(
    "offsets", [None, [0], [0, 1, 2], [0, True], [0, 1.0], ["0", "1"], [-1, 0]]
)
def test_what_are_no_offsets_is_refused(offsets: object) -> None:
    text = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": offsets}})
    assert "data offsets" in refusal(text, 1)


def test_a_header_stuffed_with_values_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(header, "MAX_HEADER_MARKS", 1000)
    assert "stuffed" in refusal('{"a":[' + "1," * 1001 + "1]}", 0)


def test_a_hundred_thousand_tensors_are_parsed_without_delay() -> None:
    tensors = {f"layers.{n}.weight": entry(4 * n, 4 * n + 4, "F32", [1]) for n in range(100_000)}
    text = json.dumps(tensors)
    begun = time.process_time()
    assert len(parse(text, 400_000).tensors) == 100_000
    assert time.process_time() - begun < 5  # about 1 s when the machine is idle
