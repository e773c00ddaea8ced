from pathlib import Path

import pytest
from tiny_rules import fault, faults, parsed, text

from converter import api
from converter.errors import PlanError, RuleError
from converter.rules.lint import expand_checked
from converter.rules.settings import resolve

COLLIDING = """
    dims: {n: 2}
    index: {i: n}
    rules:
      - {from: a, to: {x: [1]}}
      - {from: b, to: {"x": [1], y: [1]}, steps: [{chunk: {dim: 0, chunks: 2}}]}
    """


def test_two_sources_for_one_target_are_refused_with_both_places() -> None:
    finding = fault(COLLIDING)
    assert finding.what == "two sources for one target"
    assert finding.where == "tiny.yaml:5"
    assert finding.tensor == "x"
    assert finding.expected == "each name exactly once"
    assert finding.got == "also at tiny.yaml:4"
    assert finding.hint == "give each its own name, or narrow the index of one of the rules"


def test_a_rule_that_meets_itself_is_refused_once() -> None:
    finding = fault('index: {i: 30}\nrules: [{from: "a.{i}", to: {b: [1]}}]')
    assert finding.what == "two sources for one target"
    assert finding.tensor == "b"


def test_collisions_that_differ_in_numbers_are_folded() -> None:
    finding = fault("""
        index: {i: 30}
        rules:
          - {from: "a.{i}", to: {"x.{i}": [1]}}
          - {from: "b.{i}", to: {"x.{i}": [1]}}
        """)
    assert finding.tensor == "x.{0..29}"


@pytest.mark.parametrize(
    "other",
    ["rules: [{from: a, to: {x: [1]}}, {from: a, to: {y: [1]}}]", "drop: [{name: a, because: b}]"],
)
def test_one_source_that_is_used_twice_is_refused(other: str) -> None:
    finding = fault(other)
    assert finding.what == "one source tensor is used twice"
    assert finding.tensor == "a"


def test_a_source_may_be_taken_by_one_rule_or_another() -> None:
    body = """
        dims: {fused: 0}
        rules:
          - {from: a, when: fused == 0, to: {x: [1]}}
          - {from: a, when: fused == 1, to: {y: [1]}}
        """
    assert not faults(body)
    assert not faults(body, dims={"fused": 1})


@pytest.mark.parametrize(
    ("names", "refused"),
    [("x.**, x.y.**", True), ("x.y.**, x.**", True), ("x.y.**, x.z.**", False)],
)
def test_no_tensor_falls_under_two_wildcards(names: str, *, refused: bool) -> None:
    first, second = names.split(", ")
    found = faults(f"""
        drop:
          - {{name: {first}, count: 1, because: a}}
          - {{name: {second}, count: 1, because: b}}
        """)
    assert [finding.what for finding in found] == ["one source tensor is dropped twice"] * refused


def test_an_alias_is_a_name_of_its_own() -> None:
    finding = fault("alias: [{name: b, of: b, because: they are tied}]")
    assert finding.what == "two sources for one target"


def test_an_alias_of_nothing_is_refused_with_the_nearest() -> None:
    finding = fault("""
        rules: [{from: a, to: {token_embedding.weight: [1]}}]
        alias:
          - {name: head.weight, of: token_embeddings.weight, because: they are tied}
        """)
    assert finding.what == "head.weight is an alias of no canonical tensor"
    assert finding.where == "tiny.yaml:3"
    assert finding.tensor == "token_embeddings.weight"
    assert finding.hint == "did you mean 'token_embedding.weight'?"


def test_an_alias_of_an_alias_is_refused() -> None:
    finding = fault("""
        alias:
          - {name: c, of: b, because: they are tied}
          - {name: d, of: c, because: they are tied}
        """)
    assert finding.tensor == "c"


def test_nan_is_allowed_in_what_a_rule_produces_alone() -> None:
    finding = fault("allow_nan:\n  - b\n  - bb")
    assert finding.what == "allow_nan names no canonical tensor"
    assert finding.where == "tiny.yaml:3"
    assert finding.tensor == "bb"


def test_nan_may_be_allowed_in_what_a_rule_produces_for_other_dims() -> None:
    body = """
        dims: {head: 0}
        rules: [{from: a, to: {b: [1]}}, {from: c, when: head == 1, to: {head.bias: [1]}}]
        allow_nan: [head.bias]
        """
    assert not faults(body)


@pytest.mark.parametrize("scope", ["[m., n.]", "{except: [x.]}"])
def test_a_rule_or_drop_that_names_what_is_out_of_scope_is_refused(scope: str) -> None:
    found = faults(f"""
        scope: {scope}
        rules:
          - {{from: m.a, to: {{b: [1]}}}}
          - {{from: x.a, to: {{c: [1]}}}}
        drop:
          - {{name: x.b, because: it is of no use}}
        """)
    assert [(finding.code, finding.where, finding.tensor) for finding in found] == [
        ("out-of-scope", "tiny.yaml:4", "x.a"),
        ("out-of-scope", "tiny.yaml:6", "x.b"),
    ]


def test_all_faults_are_found_together() -> None:
    found = faults("""
        rules:
          - {from: a, to: {b: [1]}}
          - {from: a, to: {b: [1]}}
          - {from: c, to: {"/": [1]}}
        alias: [{name: x, of: y, because: z}]
        """)
    assert {finding.code for finding in found} == {"target", "collision", "alias"}
    assert len(found) == 4


def test_a_fault_is_the_files_own_unless_dims_were_set() -> None:
    rule_file = parsed(COLLIDING)
    with pytest.raises(RuleError, match="two sources for one target"):
        expand_checked(rule_file, resolve(rule_file))
    with pytest.raises(PlanError, match="two sources for one target"):
        expand_checked(rule_file, resolve(rule_file, dims={"n": 2}))


def lint(tmp_path: Path, body: str) -> list[str]:
    """Return what is found in a rule file, as it stands and under each variant."""
    path = tmp_path / "tiny.yaml"
    path.write_text(text(body))
    return [finding.what for finding in api.lint(path)]


def test_a_rule_file_is_linted_under_every_variant(tmp_path: Path) -> None:
    body = """
        dims: {n: 1}
        variants: {size: {one: {}, none: {dims: {n: 0}}, two: {dims: {n: 2}}}}
        require: [{that: n > 0, because: there is one}]
        index: {i: n}
        rules: [{from: "a.{i}", to: {b: [1]}}]
        """
    assert lint(tmp_path, body) == [
        "the dims break a requirement: there is one",
        "two sources for one target",
    ]


def test_variants_that_never_combine_are_a_fault_of_the_file(tmp_path: Path) -> None:
    body = """
        dims: {n: 1}
        variants: {size: {a: {dims: {n: 2}}}, depth: {b: {dims: {n: 3}}}}
        rules: [{from: a, to: {b: [n]}}]
        """
    assert lint(tmp_path, body) == ["the variants 'a' and 'b' both set n"]


def test_a_file_that_cannot_be_parsed_is_linted_too(tmp_path: Path) -> None:
    assert lint(tmp_path, "dims: {n: 1, n: 2}") == ["the key 'n' stands twice"]
