"""The record of a trace survives its file, and nothing of a stranger's is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

import pytest

from converter import trace_record
from converter.errors import SourceError
from converter.trace_record import (
    Call,
    TraceRecord,
    from_metadata,
    is_trace,
    to_metadata,
)

CALLS = (
    Call("a.b", "Linear", "a", ("a.b.input",), ("a.b.output",), whole=True),
    Call("a", "Layer", "", ("a.input.x",), ("a.output",), whole=True),
    Call("", "Network", None, ("input.x",), ("output",), whole=False),
)
STORED = {"input.x", "a.b.output", "a.output", "output"}
SAME = {"a.input.x": "input.x", "a.b.input": "input.x", "output": "a.output"}
TRACE = TraceRecord(CALLS, SAME, ("a.output.1",), "toy", "0" * 64)


def calls(*changed: Call) -> dict[str, str]:
    return {"calls": json.dumps([asdict(call) for call in changed])}


def test_a_record_comes_back_as_it_was() -> None:
    metadata = to_metadata(TRACE)
    assert is_trace(metadata)
    assert all(text.isascii() for text in metadata.values())
    assert from_metadata(metadata, STORED, where="t") == TRACE
    bare = TraceRecord(CALLS, SAME)
    assert from_metadata(to_metadata(bare), STORED, where="t") == bare


def test_the_number_of_a_call_is_not_part_of_its_module() -> None:
    assert replace(CALLS[0], name="a.b#12").module == "a.b"
    assert replace(CALLS[0], name="#2").module == ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"trace": "2"}, "a version of traces"),
        ({"calls": "[]]"}, "not strict JSON"),
        ({"calls": "{}"}, "at calls"),
        ({"calls": '[{"name": "a"}]'}, "at calls / 0"),
        ({"same": "null"}, "at same"),
        ({"left_out": "[1]"}, "at left_out / 0"),
        ({"content_sha256": "abc"}, "at content_sha256"),
        ({"same": '{"a.input.x": "gone"}'}, "the same as one that the file does not hold"),
        (
            {"same": '{"a.input.x": "input.x", "a.b.input": "a.input.x"}'},
            "the same as one that the file does not hold",
        ),
        ({"same": "{}"}, "a call names a tensor that it cannot have"),
        (calls(*CALLS[:2], replace(CALLS[2], inputs=("a.output",))), "cannot have"),
        (calls(CALLS[1], CALLS[0], CALLS[2]), "does not end before its caller"),
        (calls(replace(CALLS[0], caller="x"), *CALLS[1:]), "does not end before its caller"),
        (calls(replace(CALLS[0], caller="a.b"), *CALLS[1:]), "does not end before its caller"),
        (calls(CALLS[0], replace(CALLS[1], name="a.b"), CALLS[2]), "not the calls of a trace"),
        ({"calls": "[" * 5000 + "]" * 5000}, "nests too deeply"),
    ],
)
def test_what_cannot_be_is_refused(changed: Mapping[str, str], said: str) -> None:
    metadata = {**to_metadata(TRACE), **changed}
    with pytest.raises(SourceError, match=said) as raised:
        from_metadata(metadata, STORED, where="t.safetensors")
    finding = raised.value.findings[0]
    assert finding.where is not None
    assert finding.where.startswith("t.safetensors")


def test_more_calls_than_are_ever_written_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_record, "MOST_CALLS", 2)
    with pytest.raises(SourceError, match="not the calls of a trace"):
        from_metadata(to_metadata(TRACE), STORED, where="t")
