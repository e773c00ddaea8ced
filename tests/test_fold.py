import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.finding import Finding
from converter.fold import fold_findings, fold_names, fold_numbers, numbers, skeleton


def unfold(pattern: str) -> list[str]:
    """Write out what a folded pattern stands for."""
    texts = re.split(r"\{([0-9.,]+)\}", pattern)
    sets = [_members(runs) for runs in texts[1::2]]
    return [
        "".join(text + number for text, number in zip(texts[::2], (*chosen, ""), strict=True))
        for chosen in product(*sets)
    ]


def _members(runs: str) -> list[str]:
    ends = [run.split("..") for run in runs.split(",")]
    return [str(number) for run in ends for number in range(int(run[0]), int(run[-1]) + 1)]


@pytest.mark.parametrize(
    ("names", "patterns"),
    [
        (["a"], ["a"]),
        (["a.0", "a.1", "a.2"], ["a.{0..2}"]),
        (["a.2", "a.0", "a.1"], ["a.{0..2}"]),
        (["a.0", "a.1", "a.5"], ["a.{0..1,5}"]),
        (["a.3.w"], ["a.3.w"]),
        (["a.9", "a.10", "a.11"], ["a.{9..11}"]),
        (["b.0", "a.0", "b.1", "a.1"], ["b.{0..1}", "a.{0..1}"]),
        (["a.0.x.0", "a.0.x.1", "a.1.x.0", "a.1.x.1"], ["a.{0..1}.x.{0..1}"]),
        (["a.0.x.0", "a.0.x.1", "a.1.x.0"], ["a.0.x.{0..1}", "a.1.x.0"]),
        (["a.0.x.0", "a.1.x.1"], ["a.0.x.0", "a.1.x.1"]),
        (["a1", "a2b"], ["a1", "a2b"]),
        (["a.01", "a.02"], ["a.01", "a.02"]),
        (["a.1", "a.01"], ["a.1", "a.01"]),
        (["a#1", "a1#", "a#2"], ["a#{1..2}", "a1#"]),
        (["1.2.3.4.5.6.7.8.9", "1.2.3.4.5.6.7.9.9"], ["1.2.3.4.5.6.7.{8..9}.9"]),
        (["1.2.3.4.5.6.7.8.9", "1.2.3.4.5.6.7.8.0"], ["1.2.3.4.5.6.7.8.9", "1.2.3.4.5.6.7.8.0"]),
        (["a" + "1" * 5000, "a" + "2" * 5000], ["a" + "1" * 5000, "a" + "2" * 5000]),
        ([], []),
    ],
)
def test_numbers_fold_where_every_combination_is_there(
    names: list[str], patterns: list[str]
) -> None:
    assert fold_names(names) == patterns


@given(
    st.sets(
        st.lists(st.sampled_from([".", "a", "#", "\\", "0", "1", "2", "9", "10", "01"])).map(
            "".join
        )
    )
)
def test_patterns_unfold_to_exactly_the_names(names: set[str]) -> None:
    unfolded = [name for pattern in fold_names(sorted(names)) for name in unfold(pattern)]
    assert sorted(unfolded) == sorted(names)


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)), min_size=1))
def test_grids_of_numbers_unfold_to_exactly_themselves(grid: set[tuple[int, int, int]]) -> None:
    names = {f"a.{i}.b.{j}.{k}" for i, j, k in grid}
    unfolded = [name for pattern in fold_names(names) for name in unfold(pattern)]
    assert sorted(unfolded) == sorted(names)


@given(st.text(alphabet="a.#\\019", max_size=8), st.text(alphabet="a.#\\019", max_size=8))
def test_names_of_one_skeleton_differ_in_their_numbers_alone(first: str, second: str) -> None:
    if skeleton(first) == skeleton(second) and numbers(first) == numbers(second):
        assert first == second


@pytest.mark.parametrize(
    ("values", "text"),
    [([3], "3"), ([2, 0, 1], "0..2"), ([0, 1, 2, 5, 7, 8], "0..2,5,7..8"), ([4, 4], "4")],
)
def test_numbers_are_written_as_runs(values: list[int], text: str) -> None:
    assert fold_numbers(values) == text


def shape(tensor: str | None, got: str = "[5]") -> Finding:
    return Finding("shape", "another shape", "f.yaml:1", tensor, "[4]", got)


def test_findings_fold_where_they_differ_in_the_tensor_alone() -> None:
    found = [shape("a.0"), shape("a.1", got="[6]"), shape("a.2"), shape("a.3")]
    assert fold_findings(found) == [shape("a.{0,2..3}"), shape("a.1", got="[6]")]


def test_findings_without_a_tensor_fold_into_one() -> None:
    assert fold_findings([shape(None), shape(None)]) == [shape(None)]


def test_names_that_do_not_fold_are_all_listed() -> None:
    assert fold_findings([shape("a.w"), shape("b.w")]) == [shape("a.w, b.w")]


def test_no_findings_fold_to_none() -> None:
    assert fold_findings([]) == []
