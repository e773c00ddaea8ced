"""What a scaffold left open is refused, at its line, with what is to be decided."""

from __future__ import annotations

import pytest

from converter.errors import RuleError
from converter.finding import Finding
from converter.rules import parse

TEXT = """\
format: 1
model: m
title: {title}
origin: here
dtypes: [F32]
rules:
  - from: {source}
    to:
      "{target}": [4]
drop:
  - name: b
    because: {because}
"""
DECIDED = {"title": "A model", "source": "a", "target": "a", "because": "made anew"}


def findings(**open_: str) -> tuple[Finding, ...]:
    with pytest.raises(RuleError) as caught:
        parse.parse(TEXT.format(**{**DECIDED, **open_}).encode(), "m.yaml")
    return caught.value.findings


def test_what_is_decided_is_not_refused() -> None:
    assert parse.parse(TEXT.format(**DECIDED).encode(), "m.yaml").model == "m"


@pytest.mark.parametrize(
    ("open_", "what", "line"),
    [
        ({"title": '"?"'}, "it is not decided what title is", 3),
        ({"target": "?"}, "it is not decided what a becomes", 9),
        ({"target": "layers.?"}, "it is not decided what a becomes", 9),
        ({"source": "[a, c]", "target": "?"}, "it is not decided what a, c becomes", 9),
        ({"because": '"?"'}, "it is not decided what drop.0.because is", 12),
    ],
    ids=str,
)
def test_a_question_mark_is_a_decision_that_is_left(
    open_: dict[str, str], what: str, line: int
) -> None:
    (finding,) = findings(**open_)
    assert (finding.code, finding.what) == ("undecided", what)
    assert finding.where == f"m.yaml:{line}"
    assert finding.hint is not None


def test_all_that_is_open_is_told_at_once() -> None:
    found = findings(title='"?"', target="?", because='"?"')
    assert [finding.code for finding in found] == ["undecided"] * 3


def test_a_set_that_is_called_to_is_no_target() -> None:
    text = TEXT.format(**{**DECIDED, "source": '"{to}"', "target": "{to}"})
    sets = 'sets: {to: {"a?": a}}\nrules:'
    assert parse.parse(text.replace("rules:", sets).encode(), "m.yaml").model == "m"


def test_a_source_tensor_may_be_called_by_a_question_mark() -> None:
    text = TEXT.format(**{**DECIDED, "source": '"?"'}).replace("name: b", 'name: "?"')
    assert parse.parse(text.encode(), "m.yaml").model == "m"


def test_a_question_in_prose_is_none() -> None:
    assert parse.parse(TEXT.format(**{**DECIDED, "title": "Why?"}).encode(), "m.yaml").title
