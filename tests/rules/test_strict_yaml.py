import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_rules import finding_of, findings_of

from converter.errors import RuleError
from converter.finding import Finding
from converter.rules.strict_yaml import MAX_BYTES, MAX_DEPTH, Plain, parse, read

RULES = sorted(Path(__file__).parents[2].joinpath("rules").glob("*.yaml"))


def value(text: str) -> Plain:
    return parse(text.encode(), "f.yaml").value


def refusal(text: str | bytes) -> Finding:
    with pytest.raises(RuleError) as caught:
        parse(text if isinstance(text, bytes) else text.encode(), "f.yaml")
    return finding_of(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", 12),
        ("-3", -3),
        ("+4", 4),
        ("0", 0),
        ("1e-5", 1e-5),
        ("1.", 1.0),
        (".5", 0.5),
        ("6.02E+23", 6.02e23),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ('"yes"', "yes"),
        ("yesterday", "yesterday"),
        ("blocks.{i}.weight", "blocks.{i}.weight"),
        ("8 * hidden // 3", "8 * hidden // 3"),
        ("|\n  two\n  lines", "two\nlines"),
        ("[1, [a, {b: 2}]]", [1, ["a", {"b": 2}]]),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(text: str, expected: Plain) -> None:
    assert value(f"a: {text}") == {"a": expected}


def test_an_integer_and_a_float_of_equal_value_stay_apart() -> None:
    assert [type(item) for item in value("[1, 1.0, 1e0]") or ()] == [int, float, float]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        *("010", "-08", "0o17", "0x1F", "0b101", "1_000", "1_0.5", "1:30", "190:20:30"),
        *("yes", "no", "on", "off", "Yes", "NO", "oN", ".inf", "-.Inf", ".NaN"),
        *("2001-12-14", "2001-12-14 21:59:43"),
    ],
)
def test_what_versions_of_yaml_read_differently_is_refused_until_quoted(text: str) -> None:
    finding = refusal(f"b: 1\na: {text}\n")
    assert finding.where == "f.yaml:2"
    assert finding.hint is not None
    assert "quote it" in finding.hint
    assert value(f"a: '{text}'") == {"a": text}


@pytest.mark.parametrize("key", ["yes", "010", "1", "1.5", "null", "true", "[a]", "{a: b}", "<<"])
def test_a_key_that_is_not_plainly_text_is_refused(key: str) -> None:
    assert refusal(f"b: 1\n? {key}\n: 2\n").where == "f.yaml:2"


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: 2\na: 3\n", 3), ("a: 1\nb:\n\n'a': 1\n", 4), ("x:\n\n  {a: 1, a: 2}", 3)],
)
def test_a_duplicate_key_is_refused_where_it_stands_again(text: str, line: int) -> None:
    finding = refusal(text)
    assert finding.what == "the key 'a' stands twice"
    assert finding.where == f"f.yaml:{line}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: &x 1", "an anchor (&x)"),
        ("a: *x", "an alias (*x)"),
        ("a: !!int 1", "a tag (tag:yaml.org,2002:int)"),
        ("<<: {a: 1}", "a merge key (<<)"),
        ("%YAML 1.1\n---\na: 1", "a directive (%)"),
        ("a: 1\n---\nb: 2", "a second document in one file"),
        ("", "the file is empty"),
        ("# nothing but a comment", "the file is empty"),
        ('a: "\\ud800"', "half a surrogate pair, which is no character"),
    ],
)
def test_what_a_rule_file_never_needs_is_refused(text: str, what: str) -> None:
    assert refusal(text).what == what


@pytest.mark.parametrize("text", ["9" * 301, "1e999", "-1e999", "1" * 400 + ".0"])
def test_a_number_beyond_all_sense_is_refused(text: str) -> None:
    assert refusal(f"a: {text}").what.endswith("is too large a number")


@pytest.mark.parametrize("text", ["- {i}", "a: {p}.weight", "a: [x, {i}]", "a: [channels[i], 1]"])
def test_braces_and_brackets_that_want_quotes_say_so(text: str) -> None:
    finding = refusal(text)
    assert finding.hint is not None
    assert finding.hint.startswith("quote it")


def test_a_mapping_whose_first_value_is_null_is_a_mapping() -> None:
    assert value("audio: {fmax: null, fmin: 0}") == {"audio": {"fmax": None, "fmin": 0}}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"a: 1\nb: \xff\n", 2),
        (b"a: 1\n\nb: \x07\n", 3),
        (b"a: 1\nb: [1, 2\nc: 3\n", 3),
        (b'a: 1\nb: "\\UFFFFFFFF"\n', 2),
        (b"a:\n\t- 1\n", 2),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(text: bytes, line: int) -> None:
    assert refusal(text).where == f"f.yaml:{line}"


@pytest.mark.parametrize(
    ("encoding", "told"), [("utf-8-sig", "UTF-8"), ("utf-16", "UTF-16"), ("utf-32", "UTF-32")]
)
def test_a_byte_order_mark_is_named_since_no_editor_shows_it(encoding: str, told: str) -> None:
    finding = refusal("a: 1\nb: 2\n".encode(encoding))
    assert finding.what == f"the file begins with the byte order mark (BOM) of {told}"
    assert (finding.where, finding.hint) == ("f.yaml:1", "save the file as UTF-8 without BOM")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028"])
def test_whatever_ends_lines_the_line_that_is_shown_is_the_one_that_is_counted(end: str) -> None:
    finding = refusal(f"a: 1{end}b: @x{end}c: 3{end}")
    assert (finding.where, finding.got) == ("f.yaml:2", "b: @x")


def test_a_file_nested_too_deeply_is_refused() -> None:
    assert value("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert refusal("[" * 2000 + "]" * 2000).what == "nested too deeply"


def test_a_file_larger_than_any_rule_file_is_refused() -> None:
    assert refusal(b" " * (MAX_BYTES + 1)).what == "the file is too large"


def test_every_value_keeps_its_line_and_what_has_none_is_where_its_holder_is() -> None:
    document = parse(b"a: 1\nb:\n  - c\n  - d:\n      [1,\n       2]\n", "f.yaml")
    assert document.where(("b", 0)) == "f.yaml:3"
    assert document.where(("b", 1, "d", 1)) == "f.yaml:6"
    assert document.where(("b", 1, "e", 7)) == "f.yaml:4"
    assert document.where(()) == "f.yaml:1"


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    for path in (tmp_path, tmp_path / "fifo.yaml"):
        with pytest.raises(OSError, match="not a regular file"):
            read(path)


def test_of_a_huge_file_no_more_is_read_than_shows_that_it_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    assert len(read(path)) == MAX_BYTES + 1


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused_in_one_way(text: bytes) -> None:
    assert all(finding.where for finding in findings_of(RuleError, lambda: parse(text, "f.yaml")))


@given(st.text(alphabet="ab:-[]{},'\"\\&*!|>%#?\n \t012.~\u2028\ue000\x85", max_size=60))
def test_arbitrary_marks_of_yaml_are_read_or_refused_in_one_way(text: str) -> None:
    found = findings_of(RuleError, lambda: parse(text.encode(), "f.yaml"))
    assert all(finding.where for finding in found)


@given(st.sampled_from(RULES), st.integers(0), st.binary(max_size=3), st.integers(0, 5))
def test_a_damaged_rule_file_is_read_or_refused_in_one_way(
    path: Path, place: int, inserted: bytes, deleted: int
) -> None:
    text = path.read_bytes()[:4000]
    place %= len(text)
    damaged = text[:place] + inserted + text[place + deleted :]
    found = findings_of(RuleError, lambda: parse(damaged, "f.yaml"))
    assert all(finding.where for finding in found)
