import pytest
from lint_bodies import found, only

TWO = "rules: [{from: a, to: {b: [1]}}, {from: c, WHEN, to: {d: [1]}}]"


@pytest.mark.parametrize(
    "when", ["n == 1 and n == 2", "n < 0", "n * 2 == 7", "n != n", "n > 100 and n < 50"]
)
def test_a_condition_that_never_holds_is_named(when: str) -> None:
    finding = only("dims: {n: 1}\n" + TWO.replace("WHEN", f"when: {when}"))
    assert finding.code == "unreachable"
    assert finding.what == "the rule is never in force: its condition never holds"
    assert finding.got == when


@pytest.mark.parametrize(
    "when", ["n == 0", "n == 7", "n > 100", "n % 7 == 3", "m == 40", "n >= 16 and n < 18"]
)
def test_a_rule_that_a_dim_switches_on_is_no_fault(when: str) -> None:
    body = "dims: {n: 1}\nderived: {m: 4 * n}\nrequire: [{that: m > 0, because: it is}]\n"
    assert found(body + TWO.replace("WHEN", f"when: {when}")) == []


def test_a_rule_that_holds_under_one_variant_is_no_fault() -> None:
    body = """
        dims: {kind: 4711}
        variants: {v: {plain: {}, other: {dims: {kind: 815}}}}
        rules: [{from: a, to: {b: [1]}}, {from: c, when: kind * 3 == 2445, to: {d: [1]}}]
        """
    assert found(body) == []


def test_a_rule_that_only_two_variants_together_bring_into_force_is_no_fault() -> None:
    body = """
        dims: {a: 10, b: 10}
        variants: {v: {a: {}, aa: {dims: {a: 20}}}, w: {b: {}, bb: {dims: {b: 20}}}}
        rules: [{from: a, to: {b: [1]}}, {from: c, when: a * a * b * b == 160000, to: {d: [1]}}]
        """
    assert found(body) == []


def test_a_rule_is_checked_where_two_variants_meet() -> None:
    body = """
        dims: {a: 0, b: 0}
        variants: {v: {a: {}, aa: {dims: {a: 1}}}, w: {b: {}, bb: {dims: {b: 1}}}}
        rules: [{from: a, to: {b: [1]}}, {from: c, when: a + b == 2, to: {b: [1]}}]
        """
    assert found(body) == [("collision", "tiny.yaml:3")]


def test_that_two_variants_do_not_go_together_is_no_fault() -> None:
    body = """
        dims: {a: 0}
        variants: {v: {a: {}, aa: {dims: {a: 1}}}, w: {b: {}, bb: {dims: {a: 2}}}}
        rules: [{from: a, to: {b: [1]}}, {from: c, when: a > 0, to: {d: [1]}}]
        """
    assert found(body) == []


@pytest.mark.parametrize("bounds", ["9..3", "layers..1", "layers + 1..layers"])
def test_a_range_without_a_value_is_named(bounds: str) -> None:
    body = f"""
        dims: {{layers: 4}}
        require: [{{that: layers > 0, because: it is}}]
        index: {{i: "{bounds}"}}
        rules: [{{from: a, to: {{b: [1]}}}}, {{from: "c.{{i}}", to: {{"d.{{i}}": [1]}}}}]
        """
    finding = only(body)
    assert finding.what == "the rule is never in force: its indices have no values"
    assert finding.got == bounds


def test_a_range_that_a_dim_of_zero_empties_is_no_fault() -> None:
    body = """
        dims: {adapters: 0}
        index: {i: adapters}
        rules: [{from: a, to: {b: [1]}}, {from: "c.{i}", to: {"d.{i}": [1]}}]
        """
    assert found(body) == []


def test_drops_and_aliases_are_looked_at_too() -> None:
    body = """
        dims: {n: 1}
        drop: [{name: c, when: n < 0, because: it is}]
        alias: [{name: d, of: b, when: n < 0, because: it is}]
        """
    assert found(body) == [("unreachable", "tiny.yaml:2"), ("unreachable", "tiny.yaml:3")]


@pytest.mark.parametrize(
    "body",
    [
        "require: [{that: 2 > 1, because: it is}]",
        "rules: [{from: a, when: 1 == 1, to: {b: [1]}}]",
    ],
)
def test_a_condition_that_mentions_nothing_is_named(body: str) -> None:
    assert only(body).what == "a condition that is the same for all dims"


def test_a_file_that_is_wrong_already_is_not_searched() -> None:
    body = """
        dims: {n: 1}
        rules:
          - {from: a, to: {b: [1]}}
          - {from: a, to: {c: [1]}}
          - {from: d, when: n < 0, to: {e: [1]}}
        """
    assert found(body) == [("collision", "tiny.yaml:4")]
