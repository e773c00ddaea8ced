import difflib
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.finding import Finding, closest, first_few, listed, printable

WORDS = st.text(alphabet="abcd_", max_size=8)


@given(WORDS, st.lists(WORDS, max_size=12))
def test_the_closest_is_the_one_that_difflib_finds(name: str, candidates: list[str]) -> None:
    found = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    assert closest(name, candidates) == (found[0] if found else None)


def test_the_search_for_the_closest_ends_however_many_and_long_the_candidates() -> None:
    compared = 0

    def endless(text: str) -> Iterator[str]:
        nonlocal compared
        while True:
            compared += 1
            yield text

    assert closest("hidden", endless("hiddem")) == "hiddem"
    assert 1000 < compared < 100_000
    compared = 0
    closest("ab" * 2000, endless("ba" * 2000))
    assert compared < 10


def test_many_names_are_listed_in_part() -> None:
    assert listed(["a", "b"]) == "one of a, b"
    assert listed([], "none: there are none") == "one of none: there are none"
    assert listed([f"n{number}" for number in range(60)]).endswith("n58, n59")
    assert listed([f"n{number}" for number in range(61)]).endswith(" …")
    assert len(listed(["x" * 100_000])) < 3000


def test_of_very_many_findings_the_first_are_kept() -> None:
    findings = [Finding("code", f"number {number}") for number in range(202)]
    assert first_few(findings[:200], "x.yaml") == findings[:200]
    kept = first_few(iter(findings), "x.yaml")
    assert kept[:200] == findings[:200]
    assert kept[200].code == "more"
    assert kept[200].where == "x.yaml"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe 重み", "größe 重み"),
        ("a\x1b[2J\x07", "a\\x1b[2J\\x07"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
        ("a\ufe0f\u3164\u034f", "a\\ufe0f\\u3164\\u034f"),
        ("\U000e0041\U000e0101", "\\U000e0041\\U000e0101"),
        ("\ud800", "\\ud800"),
        ("a\nb\u2028c\x85", "a\\nb\\u2028c\\x85"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_whatever_is_shown_is_on_one_line_and_visible(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(char).startswith("C") for char in shown)
