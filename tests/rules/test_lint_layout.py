import pytest
from lint_bodies import found, only


def test_numbers_that_start_beyond_zero_are_named() -> None:
    finding = only('index: {i: 1..4}\nrules: [{from: "a.{i}", to: {"x.layers.{i}.w": [1]}}]')
    assert finding.code == "gap"
    assert finding.tensor == "x.layers.*"
    assert finding.got == "{1..4}"


def test_numbers_with_a_hole_are_named() -> None:
    body = 'index: {i: 3}\nrules: [{from: "a.{i}", to: {"layers.{i * 2}": [1]}}]'
    assert only(body).got == "{0,2,4}"


@pytest.mark.parametrize(
    "rules",
    [
        '{from: "a.{i}", to: {"layers.{i}.w": [1]}}, '
        '{from: "b.{i}", when: i % 2 == 1, to: {"layers.{i}.skip": [1]}}',
        '{from: "a.{i}", to: {"layers.{i * 2}.w": [1]}}, '
        '{from: "b.{i}", to: {"layers.{i * 2 + 1}.w": [1]}}',
        "{from: a, to: {mlp.0.w: [1]}}, {from: b, to: {mlp.2.w: [1]}}, "
        '{from: "c.{i}", to: {"x.{i}": [1]}}',
        '{from: "a.{i}", to: {"stages.{i // 2}.blocks.{i % 2}.w": [1]}}',
        '{from: "a.{i}", to: {"conv{i + 1}.w": [1]}}',
        '{from: "a.{i}", to: {"x.{i + 1}": [1]}}, {from: b, to: {x.0: [1]}}',
    ],
)
def test_numbers_that_other_rules_complete_are_no_fault(rules: str) -> None:
    assert found(f"index: {{i: 4}}\nrules: [{rules}]") == []


def test_aliases_complete_numbers_too() -> None:
    body = """
        index: {i: 1..2}
        rules: [{from: first, to: {first.w: [1]}}, {from: "a.{i}", to: {"x.{i}.w": [1]}}]
        alias: [{name: x.0.w, of: first.w, because: they are tied}]
        """
    assert found(body) == []


def test_a_name_that_goes_on_from_another_is_named() -> None:
    finding = only("rules: [{from: a, to: {x.norm: [1]}}, {from: b, to: {x.norm.weight: [1]}}]")
    assert (finding.code, finding.tensor) == ("module", "x.norm.weight")
    assert finding.expected == "no tensor of the name x.norm, which must be a module"


def test_names_that_only_begin_alike_are_no_fault() -> None:
    assert found("rules: [{from: a, to: {norm: [1]}}, {from: b, to: {norm2.weight: [1]}}]") == []


@pytest.mark.parametrize(
    ("names", "is_text"),
    [
        ("e.0, e.1, e.10, e.2", True),
        ("e.0, e.1, e.2, e.10", False),
        ("e.10, e.2, e.1, e.0", False),
        ("e.2, e.0, e.1, e.10", False),
        ("e.10, e.2, f.3", False),
        ("l.1.e.10, l.1.e.11, l.1.e.2", True),
    ],
)
def test_only_the_order_of_text_is_taken_for_a_mistake(names: str, *, is_text: bool) -> None:
    count = names.count(",") + 1
    body = f"rules: [{{from: [{names}], steps: [{{stack: {{dim: 0}}}}], to: {{b: [{count}, 4]}}}}]"
    assert found(body) == [("text-order", "tiny.yaml:1")] * is_text


def test_targets_in_the_order_of_text_are_named_too() -> None:
    targets = "x.0: [4], x.1: [4], x.10: [4], x.2: [4]"
    body = f"rules: [{{from: a, steps: [{{unstack: {{dim: 0}}}}], to: {{{targets}}}}}]"
    assert only(body).what == "the numbers in to are in the order of text, not of numbers"


@pytest.mark.parametrize(
    ("other", "faulty"), [("c", True), ("head", True), ("a", False), ("tied", False)]
)
def test_a_drop_must_equal_what_the_file_knows(other: str, *, faulty: bool) -> None:
    body = f"""
        drop:
          - {{name: head, expect: {{equals: {other}}}, because: tied}}
          - {{name: tied, expect: {{equals: a}}, because: tied}}
        """
    assert found(body) == [("expect", "tiny.yaml:2")] * faulty


def test_a_drop_may_equal_what_belongs_to_another_model() -> None:
    body = """
        scope: [x.]
        rules: [{from: x.a, to: {b: [1]}}]
        drop: [{name: x.b, expect: {equals: y.b}, because: shared}]
        """
    assert found(body) == []
