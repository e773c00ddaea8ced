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
        (b"[" + b"9" * 5000 + b"]", "a number of 5000 digits"),
        (b'["\\ud800"]', "surrogates not allowed"),
        (b'{"\\udfff": 1}', "surrogates not allowed"),
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


def test_a_message_stays_short_whatever_the_key() -> None:
    key = "k" * 100_000
    with pytest.raises(SourceError) as caught:
        strict_json.parse(f'{{"{key}": 1, "{key}": 2}}', where="x")
    assert len(str(caught.value)) < 200
