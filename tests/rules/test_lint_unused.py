import pytest
from lint_bodies import found, only


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("dims: {n: 1}", "the dim 'n'"),
        ("derived: {n: 1 + 1}", "the derived value 'n'"),
        ("index: {i: 2}", "the index 'i'"),
        ("sets: {s: [a]}", "the set 's'"),
        ("words: {w: a}", "the word 'w'"),
    ],
)
def test_what_is_declared_and_not_used_is_named(body: str, kind: str) -> None:
    assert only(body).what == f"{kind} is declared and not used"


@pytest.mark.parametrize(
    "body",
    [
        "dims: {n: 1}\nrules: [{from: a, to: {b: [n]}}]",
        "dims: {n: 1}\nrequire: [{that: n > 0, because: it is}]",
        "dims: {n: 1}\nderived: {m: n + 1}\nrules: [{from: a, to: {b: [m]}}]",
        "dims: {n: 1}\nrules: [{from: a, when: n == 1, to: {b: [1]}}]",
        'dims: {n: 1}\nindex: {i: n}\nrules: [{from: "a.{i}", to: {"b.{i}": [1]}}]',
        "dims: {n: 1}\nrules: [{from: a, steps: [{chunk: {dim: 0, chunks: n}}], to: {b: [1]}}]",
        'dims: {n: 1}\nrules: [{from: a, to: {"b.{n}": [1]}}]',
        'dims: {n: 1}\nindex: {i: 1}\ndrop: [{name: "c.{i}.**", count: n, because: it is}]',
        "dims: {n: 80}\naudio: {n_mels: n, mel_scale: htk, mel_norm: none, log: none}",
        'index: {i: 2, j: "i..i"}\nrules: [{from: "a.{j}", to: {"b.{j}": [1]}}]',
        "index: {i: 2}\nrequire: [{that: i < 2, because: it is}]",
        'index: {e: 2}\nrules: [{from: "a.{e}", gather: e, steps: [{concat: {dim: 0}}], '
        "to: {b: [2]}}]",
        'words: {w: a}\nrules: [{from: "{w}", to: {b: [1]}}]',
    ],
)
def test_what_is_mentioned_anywhere_is_used(body: str) -> None:
    assert found(body) == []


def test_an_index_of_a_rule_is_used_by_that_rule_alone() -> None:
    body = """
        index: {i: 2}
        rules:
          - {from: "a.{i}", to: {"b.{i}": [1]}}
          - {from: c, index: {i: 3}, to: {d: [1]}}
        """
    finding = only(body)
    assert finding.what == "the index 'i' is declared and not used"
    assert finding.where == "tiny.yaml:4"


def test_the_dim_of_an_unused_index_is_not_named_too() -> None:
    assert only("dims: {n: 2}\nindex: {i: n}").what == "the index 'i' is declared and not used"
