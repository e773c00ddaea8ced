import json

import pytest

from converter import strict_json
from converter.errors import SourceError


def test_plain_json_is_read() -> None:
    document = strict_json.parse(
        b'{"a": [1, -2, 0.5, 1e3, true, null], "\xc3\xa9": "\\ud83d\\ude00"}', where="x"
    )
    assert document == {"a": [1, -2, 0.5, 1000.0, True, None], "é": "😀"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a": 1, "a": 1}', "the key 'a' stands twice"),
        (b'{"b": {"a": 1, "\\u0061": 2}}', "the key 'a' stands twice"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"[1e999]", "out of the range"),
        (b"[-1e999]", "out of the range"),
        (b"[-0]", "-0 is not an integer"),
        (b'{"a": [1, 2], "b": -0 }', "-0 is not an integer"),
        (b"[123456789012345678901]", "a number of 21 digits"),
        (b"[-12345678901234567890]", "a number of 21 digits"),
        (b"[" + b"9" * 5000 + b"]", "a number of 5000 digits"),
        (b'["\\ud800"]', "half a surrogate pair"),
        (b'{"\\udfff": 1}', "half a surrogate pair"),
        (b'["\\ude00\\ud83d"]', "half a surrogate pair"),
        (b'["\\\\\\ud83d"]', "half a surrogate pair"),
        (b"[0." + b"1" * 100 + b"]", "a number of 102 digits"),
        (b'["\xff"]', "can't decode byte 0xff"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"[" * 100_000, "nests too deeply"),
        (b'{"a":' * 100_000, "nests too deeply"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b"{'a': 1}", "double quotes"),
        (b"[01]", "delimiter"),
        (b'["\x00"]', "control character"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_its_reason(text: bytes, reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        strict_json.parse(text, where="some/file.json")
    (finding,) = caught.value.findings
    assert finding.code == "json"
    assert finding.where == "some/file.json"
    assert reason in finding.what
    assert "\n" not in finding.what


@pytest.mark.parametrize(
    "text",
    [
        b"[12345678901234567890, -1234567890123456789, 0, -10]",
        b'{"layer-0.123456789012345678901234567890": [-0.5, 3, 1e-05]}',
    ],
)
def test_integers_are_read_as_they_stand(text: bytes) -> None:
    assert strict_json.parse(text, where="x") == json.loads(text)


@pytest.mark.parametrize(
    "text", [b'["\\\\ud800"]', b'["\\ud83d\\ude00\\uD7ff\\ue000\\n"]', b'["\\u0041ud800"]']
)
def test_what_only_looks_like_half_a_surrogate_pair_is_read(text: bytes) -> None:
    assert strict_json.parse(text, where="x") == json.loads(text)


def test_what_would_take_many_times_its_size_is_refused_unparsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for text in (b"[1,2,3]", b"[[[[1]]]]", b'{"a":{"b":{"c":{}}}}'):
        strict_json.parse(text, where="x", max_marks=4)
        with pytest.raises(SourceError, match="stuffed"):
            strict_json.parse(text, where="x", max_marks=2)
    monkeypatch.setattr(strict_json, "MAX_BYTES", 60)
    strict_json.parse(b'"' + b"x" * 58 + b'"', where="x")
    with pytest.raises(SourceError, match="too long a text"):
        strict_json.parse(b'"' + b"x" * 59 + b'"', where="x")
    monkeypatch.setattr(strict_json, "MAX_WIDE_BYTES", 20)
    strict_json.parse(b'["01234567890123456789"]', where="x")
    for wide in ('["012345678901234567\u00e9"]'.encode(), b'["0123456789012\\u0041"]'):
        with pytest.raises(SourceError, match="beyond ASCII"):
            strict_json.parse(wide, where="x")


def test_a_message_stays_short_whatever_the_key() -> None:
    key = "k" * 100_000
    with pytest.raises(SourceError) as caught:
        strict_json.parse(f'{{"{key}": 1, "{key}": 2}}', where="x")
    assert len(str(caught.value)) < 200
