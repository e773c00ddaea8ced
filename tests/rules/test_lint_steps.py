import pytest
from lint_bodies import found, linted, only


def test_shapes_are_worked_forth_from_a_reshape() -> None:
    body = """
        dims: {heads: 4, kv: 2, width: 8}
        require: [{that: heads % kv == 0, because: heads share keys}]
        rules:
          - from: k
            steps:
              - reshape: {shape: [heads, 2, width // 2, 16]}
              - permute: {dims: [0, 2, 1, 3]}
              - reshape: {shape: [kv * width, 16]}
            to: {k: [kv * width, 16]}
        """
    finding = only(body)
    assert (finding.code, finding.where) == ("shape", "tiny.yaml:6")
    assert finding.what.startswith("the shapes cannot add up: after reshape, ")
    assert finding.tensor == "k [16, 16]"
    assert found(body.replace("[heads, 2", "[kv, 2")) == []


def test_several_tensors_are_worked_forth_together() -> None:
    body = """
        rules:
          - from: [a, b]
            steps:
              - reshape: {shape: [2, 3]}
              - concat: {dim: 0}
              - reshape: {shape: [WHOLE]}
            to: {x: [WHOLE]}
        """
    assert found(body.replace("WHOLE", "12")) == []
    assert found(body.replace("WHOLE", "6")) == [("shape", "tiny.yaml:4")]


@pytest.mark.parametrize(
    "steps",
    [
        "{permute: {dims: [0, 1]}}",
        "{reorder_chunks: {dim: 0, order: [0, 1]}}",
        "{chunk: {dim: 0, chunks: 1}}",
    ],
)
def test_a_step_that_changes_nothing_is_named(steps: str) -> None:
    finding = only(f"rules: [{{from: a, steps: [{steps}], to: {{b: [4, 2]}}}}]")
    assert finding.code == "idle-step"
    assert finding.what.endswith("changes nothing")


def test_a_step_that_does_nothing_for_these_dims_alone_is_no_fault() -> None:
    body = "dims: {n: 1}\nrules: [{from: a, steps: [{chunk: {dim: 0, chunks: n}}], to: {b: [4]}}]"
    assert found(body) == []


def test_a_transposition_of_a_square_is_no_idle_step() -> None:
    assert found("rules: [{from: a, steps: [transpose], to: {b: [4, 4]}}]") == []


def test_a_step_that_undoes_the_one_before_is_named() -> None:
    finding = only("rules: [{from: a, steps: [transpose, transpose], to: {b: [4, 2]}}]")
    assert finding.what == "the step transpose undoes the one before it"


def test_steps_that_lose_something_are_noted_with_their_targets() -> None:
    body = """
        dtypes: [F32, F16]
        index: {i: 3}
        rules:
          - from: ["g.{i}", "v.{i}"]
            steps: [{fold_weight_norm: {dim: 0}}]
            to: {"x.{i}.weight": [4, 4]}
          - from: pad
            steps: [{slice: {dim: 0, start: 2, stop: 6, because: rows 0 and 1 are padding}}]
            to: {pad: [4]}
          - from: half
            steps: [{cast: {dtype: F16}}]
            to: {half: [4]}
          - from: exact
            steps: [transpose, {reshape: {shape: [8]}}]
            to: {exact: [8]}
        """
    answer = linted(body)
    assert answer.findings == ()
    assert [(note.where, note.what, note.tensor) for note in answer.notes] == [
        ("tiny.yaml:4", "fold_weight_norm is lossy", "x.{0..2}.weight"),
        ("tiny.yaml:7", "slice is lossy: rows 0 and 1 are padding", "pad"),
        ("tiny.yaml:10", "cast is lossy from F32", "half"),
    ]


def test_a_rule_without_a_source_loses_nothing() -> None:
    body = "rules: [{steps: [{constant: {value: 1, shape: [2], dtype: F32}}], to: {b: [2]}}]"
    assert linted(body).notes == ()
