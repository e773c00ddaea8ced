"""Every reported bug in ``tests/corpus`` is caught as its case says, and its mended form passes."""

import re
from pathlib import Path

import pytest
from corpus_cases import CASES, Case, cases, catch, prepared, run, succeed

from converter import api

ALL = list(cases())
FEWEST = 28
GOOD = (
    *api.rule_paths(),
    *api.bundle_paths(),
    *sorted((CASES.parent.parent / "examples").glob("*.yaml")),
)


def ids(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", ALL, ids=ids)
def test_a_reported_bug_is_caught(case: Case, tmp_path: Path) -> None:
    with prepared(case, tmp_path):
        caught = catch(case)
    assert (caught.exit_code, caught.codes) == (case.exit_code, case.codes), caught.text
    assert case.says in caught.text


@pytest.mark.parametrize("case", ALL, ids=ids)
def test_what_is_mended_passes_without_a_finding(case: Case, tmp_path: Path) -> None:
    with prepared(case, tmp_path):
        succeed(case.remake)
        for command in case.fixed:
            answer = run(command)
            assert (answer.exit_code, answer.codes) == (0, frozenset()), answer.text
        assert case.fixed


@pytest.mark.parametrize("case", ALL, ids=ids)
def test_mended_rules_have_no_fault_by_themselves(case: Case, tmp_path: Path) -> None:
    with prepared(case, tmp_path):
        for name in case.mended_rules:
            assert api.lint(name) == ()
    assert case.mended_rules or "--model" in (*case.remake, *case.fixed)[0]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_a_good_file_has_no_finding(path: Path) -> None:
    assert api.lint(path) == ()


def test_there_are_many_cases_each_of_a_thread_of_its_own() -> None:
    assert len(ALL) >= FEWEST
    assert len({case.thread for case in ALL}) == len(ALL)
    assert {path.name for path in CASES.iterdir()} == {case.name for case in ALL}
    for case in ALL:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", case.thread)
        assert case.kind in ("issues", "pull")


def test_every_kind_of_check_catches_some() -> None:
    assert {case.command for case in ALL} >= {
        "lint",
        "plan",
        "convert",
        "verify",
        "compare",
        "load_into",
        "load_model",
    }
    assert {case.exit_code for case in ALL} == {0, 3, 4, 5, 6, 7}
