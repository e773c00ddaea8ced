"""What is read line by line is what the parser reads, or it is left to the parser."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter import manifest as manifests
from converter import manifest_lines
from converter.errors import SourceError
from converter.manifest import (
    FileRecord,
    Manifest,
    ModelRecord,
    RulesRecord,
    Statistics,
    TensorRecord,
    ToolRecord,
    Totals,
)
from converter.spec import TensorSpec

DIGEST = "0123456789abcdef" * 4
STEPS = ({"split": {"dim": 0, "sizes": [1, 2]}}, {"cast": {"to": "F16"}})
FULL = TensorRecord(
    "blocks.0.weight",
    "model.safetensors",
    "F32",
    (2, 3),
    4096,
    24,
    DIGEST,
    (DIGEST, DIGEST),
    ("a weight", "b"),
    (TensorSpec("F16", (3, 3)), TensorSpec("F16", ())),
    STEPS,
    Statistics(-0.0, 1e-05, -1.7976931348623157e308, 0.1 + 0.2, 3),
)
MANIFEST = Manifest(
    tool=ToolRecord("checkpoint-converter", "0.1.0", "2.4.6"),
    model=ModelRecord("toy", "Ein Spielzeug für Tests", "nowhere", ("a",), {"n": 1}, {}, {}),
    rules=RulesRecord("toy.yaml", DIGEST, {}),
    sources=(FileRecord("in.safetensors", 10, DIGEST),),
    files=(FileRecord("model.safetensors", 4096, DIGEST, DIGEST),),
    tensors=(
        FULL,
        replace(FULL, name="blocks.1.weight", pieces=(), stats=None),
        TensorRecord("mask", "model.safetensors", "BOOL", (), 4120, 1, DIGEST),
        replace(FULL, name="empty", shape=(0,), steps=(), source_specs=(), sources=("x",)),
    ),
    aliases={"v": "mask"},
    dropped=(),
    stand_ins=(),
    out_of_scope=3,
    totals=Totals(2, 7, 25),
    content_sha256=DIGEST,
)
TEXT = manifests.dump(MANIFEST)


def by_lines(data: bytes, *, statistics: bool = True) -> Manifest | None:
    return manifests._load_lines(data, statistics=statistics)


def by_parser(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Manifest | None:
    """Return what the parser alone makes of a text; None when it refuses."""
    with monkeypatch.context() as patch:
        patch.setattr(manifest_lines, "part", lambda _: None)
        try:
            return manifests.load(data)
        except SourceError:
            return None


def test_lines_say_what_the_parser_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_lines(TEXT) == by_parser(TEXT, monkeypatch) == MANIFEST


def test_statistics_that_are_not_asked_are_left_out_and_nothing_else() -> None:
    without = tuple(replace(record, stats=None) for record in MANIFEST.tensors)
    assert manifests.load(TEXT, statistics=False) == replace(MANIFEST, tensors=without)


def test_no_change_of_a_byte_makes_lines_say_what_the_parser_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = TEXT.index(b'"tensors"')
    end = TEXT.index(b'"aliases"')
    draw = random.Random(0)
    read = 0
    for position in range(begin, end):
        new = draw.choice(b'0159aefnul"\\,:[]{} \n.-+\x00\x7f\xe9')
        changed = TEXT[:position] + bytes([new]) + TEXT[position + 1 :]
        found = by_lines(changed)
        if found is not None:
            assert found == by_parser(changed, monkeypatch), changed[position - 40 : position + 40]
            read += 1
    assert read > 100  # digests, names and numbers may be others


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"name": ', '"name":  '),
        ('"mask": ', '"blocks.0.weight": '),
        ('"offset": 4120', '"offset": 04120'),
        ('"offset": 4120', '"offset": -4120'),
        ('"offset": 4120', f'"offset": {"1" * 21}'),
        ('"offset": 4120, "size": 1', '"size": 1, "offset": 4120'),
        ('"shape": []', '"shape": [,]'),
        ('"shape": [0]', '"shape": [0,0]'),
        ('"BOOL"', '"BOOLS"'),
        ('"sources": ["x"]', '"sources": []'),
        ('"sources": ["x"]', '"sources": ["\\u00e9"]'),
        ('"steps": [{"split"', '"steps": [], "more": [{"split"'),
        ('"sizes": [1, 2]', '"sizes": [1,2]'),
        ('"dim": 0', '"dim": 0, "dim": 0'),
        ('"std": 1e-05', '"std": 0.00001'),
        ('"std": 1e-05', '"std": 1'),
        ('"std": 1e-05', '"std": NaN'),
        ('"mean": -0.0', '"mean": -0'),
        ('"min": -1.7976931348623157e+308', '"min": -1.8e+308'),
        ('"max": 0.30000000000000004', '"max": 0.3000000000000000444'),
        ('"nonfinite": 3', '"nonfinite": 3.0'),
        (DIGEST, DIGEST.upper()),
        ("\n },\n", "\n  },\n"),
        ('"nonfinite": 3}},\n', '"nonfinite": 3}}\n'),
    ],
)
def test_other_spellings_are_left_to_the_parser(old: str, new: str) -> None:
    text = TEXT.decode()
    assert old in text
    assert by_lines(text.replace(old, new).encode()) is None


def test_a_text_that_is_stuffed_is_left_to_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_lines(TEXT) is not None
    monkeypatch.setattr("converter.strict_json.MAX_MARKS", 100)
    assert by_lines(TEXT) is None


def test_a_fault_is_told_with_its_line() -> None:
    changed = TEXT.replace(b'"out_of_scope": 3', b'"out_of_scope":  3')
    with pytest.raises(SourceError) as caught:
        manifests.load(changed, where="m.json")
    line = changed[: changed.index(b'"out_of_scope"')].count(b"\n") + 1
    assert caught.value.findings[0].where == f"m.json:{line}"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_known_as_python_spells_it(number: float) -> None:
    assert re.fullmatch(manifest_lines._REAL, repr(number))


@pytest.mark.parametrize(
    "text", ["1", "01.0", ".5", "5.", "1e5", "1E+16", "1e16", "1e+309", "1e-325", "10e+20", "+1.0"]
)
def test_what_python_never_spells_is_no_number(text: str) -> None:
    assert not re.fullmatch(manifest_lines._REAL, text)
