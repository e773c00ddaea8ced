import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_rules import fault, faults, findings_of, text

from converter.errors import ConverterError, RuleError
from converter.rules.lint import lint
from converter.rules.parse import load, parse
from converter.rules.rule_file import RuleFile
from converter.rules.settings import choices, resolve

WHOLE = text("""
    scope: m.
    dims: {layers: 3, hidden: 8, experts: 4, rates: [4, 2], nested: [[1, 2], [3]]}
    derived: {half: hidden // 2, list: [hidden, half]}
    require: [{that: hidden % 2 == 0, because: it is halved}]
    index: {i: layers, e: experts, j: "1..rates[0]"}
    sets: {p: {query: q_proj, key: k_proj}, leaf: [weight, bias]}
    words: {g: gamma}
    variants: {spelling: {modern: {}, legacy: {words: {g: beta}, dims: {layers: 2}}}}
    conventions: {norm_eps: 1e-5}
    audio: {n_mels: hidden, fmax: null}
    rules:
      - from: layers.{i}.{p}.{g}
        steps: [transpose, {split: {dim: 0, sizes: [half, half]}}]
        to: {"l.{i}.{p}.a": [half, hidden], "l.{i}.{p}.b": [half, hidden]}
      - from: experts.{e}.weight
        gather: e
        steps:
          - stack: {dim: 0}
        to: {experts.weight: [experts, hidden]}
      - from: fused.{j}
        index: {j: 0..2}
        when: j < 2
        dtypes: [I64]
        keep_dtype: true
        absent: zeros
        to: {"fused.{j}": [2 ** j]}
      - steps: [{constant: {value: 1.5, shape: [2], dtype: F32}}]
        to: {constant: [2]}
    alias: [{name: tied, of: constant, because: one}]
    drop:
      - {name: rest.**, count: 2 * layers, because: of no use}
      - {name: mask, optional: true, expect: arange, because: rebuilt}
    allow_nan: [constant]
    """)
TOKENS = (
    *(
        "{i}",
        "{e}",
        "{p}",
        "layers",
        "hidden",
        "i",
        "e",
        "0",
        "-1",
        "2",
        "**",
        "//",
        "..",
        "10 ** 9",
    ),
    *("[", "]", "{", "}", ":", ",", "- ", "\n", " ", "null", "true", "'", "gather", "scatter"),
    *("when", "index", "steps", "constant", "concat: {dim: 0}", "stack", "rates[7]", "1 // 0"),
)


def test_a_rule_file_carries_the_name_and_digest_of_its_text() -> None:
    rule_file = parse(WHOLE.encode(), "dir/tiny.yaml")
    assert rule_file.where(7) == "dir/tiny.yaml:7"
    assert rule_file.sha256 == hashlib.sha256(WHOLE.encode()).hexdigest()


def test_a_rule_file_of_every_part_has_no_fault() -> None:
    rule_file = parse(WHOLE.encode(), "tiny.yaml")
    for variant in choices(rule_file):
        assert lint(rule_file, resolve(rule_file, variant=variant)) == ()


def test_a_rule_file_below_the_working_directory_goes_by_its_path_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rules" / "tiny.yaml"
    path.parent.mkdir()
    path.write_text(WHOLE)
    assert load(path).name == os.path.join("rules", "tiny.yaml")


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_rule_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuleError, match="the rule file cannot be read"):
        load(tmp_path / name)


def test_all_faults_of_a_file_are_found_at_once() -> None:
    found = faults("""
        dims: {hidden: 4}
        derived: {x: 2 +, y: 3 / 2}
        rules:
          - from: a b
            to: {"c.{": [hidden +], d: [hiden]}
          - from: e
            steps: [{squeeze: {dim: hidden hidden}}]
            to: {f: [1]}
        """)
    assert [finding.where for finding in found] == [
        f"tiny.yaml:{line}" for line in (4, 5, 5, 7, 2, 2, 5)
    ]


@pytest.mark.parametrize(
    ("drop", "what"),
    [
        ("{name: x.**, because: y}", "a name that ends in ** and a count belong together"),
        ("{name: x, count: 2, because: y}", "a name that ends in ** and a count belong together"),
        (
            "{name: [x, y], count: 2, because: y}",
            "a name that ends in ** and a count belong together",
        ),
        (
            "{name: 'x.1**', count: 2, because: y}",
            "a number before ** also stands for all longer numbers that begin with it",
        ),
        (
            "{name: 'x.{i}**', count: 2, because: y}",
            "a number before ** also stands for all longer numbers that begin with it",
        ),
        ("{name: [x.**], because: y}", "'x.**' is not a name"),
        ("{name: x.**.y, because: y}", "'x.**.y' is not a name"),
        ("{name: '**', count: 1, because: y}", "'' is not a name"),
    ],
)
def test_a_wildcard_stands_at_the_end_of_one_drop_with_a_count(drop: str, what: str) -> None:
    finding = fault(f"index: {{i: 2}}\ndrop:\n  - {drop}")
    assert finding.what == what
    assert finding.where == "tiny.yaml:3"


@pytest.mark.parametrize("dtype", ["F4", "C64", "F8_E8M0"])
def test_what_stands_in_for_an_absent_tensor_is_of_a_dtype_of_numbers(dtype: str) -> None:
    finding = fault(f"""
        rules:
          - from: a
            absent: {{fill: zeros, dtype: {dtype}}}
            to: {{b: [1]}}
        """)
    assert finding.code == "absent-dtype"
    assert finding.where == "tiny.yaml:3"


def test_what_stands_in_for_an_absent_tensor_has_one_dtype() -> None:
    finding = fault("""
        dtypes: [F32, F16]
        rules:
          - from: a
            absent: ones
            to: {b: [1]}
        """)
    assert finding.where == "tiny.yaml:4"
    assert finding.hint == "name it: absent: {fill: ones, dtype: F32}"


def check_in_one_way(mutated: str) -> None:
    """Assert that nothing but an error of the tree comes of a rule file, however it is damaged."""
    found = findings_of(RuleError, lambda: parse(mutated.encode(), "tiny.yaml"))
    assert all(finding.where for finding in found)
    if not found:
        rule_file = parse(mutated.encode(), "tiny.yaml")
        for variant in choices(rule_file):
            findings_of(ConverterError, partial(_lint, rule_file, variant))


def _lint(rule_file: RuleFile, variant: Sequence[str]) -> None:
    lint(rule_file, resolve(rule_file, variant=variant))


@settings(deadline=None, max_examples=150)
@given(st.integers(0, len(WHOLE)), st.sampled_from(TOKENS), st.integers(0, 12))
def test_a_token_in_another_place_is_read_or_refused_in_one_way(
    place: int, token: str, deleted: int
) -> None:
    check_in_one_way(WHOLE[:place] + token + WHOLE[place + deleted :])


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_a_word_in_place_of_another_is_read_or_refused_in_one_way(data: st.DataObject) -> None:
    words = WHOLE.split(" ")
    places = st.integers(0, len(words) - 1)
    for _ in range(data.draw(st.integers(1, 2))):
        words[data.draw(places)] = data.draw(st.sampled_from([*words, *TOKENS]))
    check_in_one_way(" ".join(words))
