"""Steps as rules write them: expressions, short ways, and what is wrong with them, by line."""

import json
from typing import Any

import jsonschema
import pytest
from tiny_rules import fault, faults, misfit, planned, units

from converter import resources
from converter.report import of_plan
from converter.spec import TensorSpec
from converter.steps import STEPS, SUGAR
from converter.steps.build import parameters

SHAPES = {"w": (12, 4)}


def test_the_sizes_of_axes_are_expressions_over_dims_and_indices() -> None:
    plan = planned(
        """
        dims: {heads: [2, 3], hidden: 4}
        index: {i: 2}
        rules:
          - from: w.{i}
            steps:
              - rearrange: {pattern: (a b) c -> b (a c), sizes: {a: "heads[i]"}}
            to: {"v.{i}": ["12 // heads[i]", "heads[i] * hidden"]}
        """,
        {"w.0": (12, 4), "w.1": (12, 4)},
    )
    assert [binding.outputs[0].shape for binding in plan.bindings] == [(6, 8), (4, 12)]


def test_an_unknown_name_among_sizes_is_told_with_its_line() -> None:
    finding = fault("""
        dims: {heads: 2}
        rules:
          - from: w
            steps:
              - rearrange: {pattern: (a b) -> a b, sizes: {a: headz}}
            to: {w: [heads, 6]}
        """)
    assert finding.code == "unknown-name"
    assert finding.where == "tiny.yaml:5"
    assert finding.hint == "did you mean 'heads'?"


def test_a_pattern_that_is_none_is_told_with_its_line() -> None:
    (finding,) = faults("""
        rules:
          - from: w
            steps:
              - rearrange: {pattern: a b -> a}
            to: {w: [12]}
        """)
    assert finding.what == "rearrange: no pattern of axes: b stands on one side only"
    assert finding.where == "tiny.yaml:4"


def test_a_short_way_is_planned_and_shown_as_the_steps_that_it_stands_for() -> None:
    plan = planned(
        """
        dims: {heads: 2}
        rules:
          - from: w
            steps:
              - split_qkv: {layout: per_head, heads: heads, head_dim: 2}
            to: {q: [4, 4], k: [4, 4], v: [4, 4]}
        """,
        SHAPES,
    )
    (binding,) = plan.bindings
    assert [step.name for step in binding.steps] == ["rearrange", "split", "rearrange"]
    report = of_plan(plan, table=True, whole=False)
    assert "split_qkv" not in json.dumps(report.result)
    assert '"sizes": {"group": 2, "row": 6}' in json.dumps(report.result)
    assert "sizes: {group: 2, row: 6}}" in report.text


def test_heads_that_do_not_fit_are_told_with_the_line_of_the_short_way() -> None:
    (finding,) = faults("""
        dims: {heads: 3}
        rules:
          - from: w
            steps:
              - transpose
              - split_qkv: {layout: grouped, heads: heads, kv_heads: 2, head_dim: 2}
            to: {q: [6, 4], k: [4, 4], v: [4, 4]}
        """)
    assert finding.what == "split_qkv: the heads do not divide into equal groups"
    assert finding.where == "tiny.yaml:6"


def test_a_source_that_does_not_divide_is_told_before_it_is_read() -> None:
    finding = misfit(
        """
        rules:
          - from: w
            steps:
              - split_qkv: {layout: per_head, heads: 2, head_dim: 2}
            to: {q: [4, 4], k: [4, 4], v: [4, 4]}
        """,
        {"w": (13, 4)},
    )
    assert finding.code == "shape"
    assert (finding.expected, finding.got) == ("[12, 4]", "[13, 4]")


def test_shapes_that_the_steps_of_a_short_way_cannot_leave_are_a_fault_of_the_file() -> None:
    (finding,) = faults("""
        rules:
          - from: w
            steps:
              - split_qkv: {layout: per_head, heads: 2, head_dim: 2}
            to: {q: [4, 4], k: [6, 4], v: [4, 4]}
        """)
    assert finding.code == "shape"


def test_ranks_are_gathered_in_ascending_order() -> None:
    body = """
        dims: {ranks: 3}
        index: {r: ranks}
        rules:
          - from: rank.{r}.w
            gather: r
            steps:
              - merge_shards: {dim: 0}
            to: {w: [6]}
        """
    assert units(body) == [(("rank.0.w", "rank.1.w", "rank.2.w"), ("w",))]
    finding = misfit(body, {f"rank.{rank}.w": (2,) for rank in range(4)})
    assert (finding.code, finding.tensor) == ("unexpected", "rank.3.w")


@pytest.mark.parametrize("step", ["add", "deduplicate", "transpose"])
def test_a_step_whose_fields_may_all_be_left_out_stands_alone(step: str) -> None:
    plan = planned(
        f"""
        rules:
          - from: {"w" if step == "transpose" else "[w, v]"}
            steps: [{step}]
            to: {{x: [2, 2]}}
        """,
        {"w": (2, 2)} if step == "transpose" else {"w": (2, 2), "v": (2, 2)},
    )
    assert [made.name for made in plan.bindings[0].steps] == [step]


RULES_SCHEMA: Any = resources.schema("rules")
STEP_SCHEMA = RULES_SCHEMA["$defs"]["step"]["properties"]


def test_the_schema_has_every_step_and_short_way_and_no_other() -> None:
    assert STEP_SCHEMA.keys() == {*STEPS, *SUGAR}


@pytest.mark.parametrize("name", [*STEPS, *SUGAR])
def test_an_editor_is_told_every_field_of_a_step_and_what_it_is(name: str) -> None:
    schema = STEP_SCHEMA[name]
    assert [*schema["properties"]] == [*parameters(name)]
    assert schema["description"]
    assert schema["additionalProperties"] is False
    assert schema["required"] is not None
    for field in schema["properties"].values():
        assert (
            field.get("description") or field == {"$ref": "#/$defs/dtype"} or "sizes" in str(field)
        )


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(resources.schema("rules"))
    jsonschema.Draft202012Validator.check_schema(resources.schema("manifest"))


def test_one_dtype_that_the_steps_take_is_enough_for_a_rule_to_add_up() -> None:
    body = """
        dtypes: [I8, F32]
        rules:
          - from: w
            steps:
              - scale: {by: 2}
            to: {w: [12, 4]}
        """
    assert faults(body) == ()
    assert planned(body, SHAPES).bindings[0].outputs[0].dtype == "F32"
    finding = misfit(body, {"w": TensorSpec("I8", (12, 4))})
    assert finding.what == "a step cannot take these tensors: scale: I8 is no float"


def test_steps_that_take_no_dtype_of_the_rule_are_a_fault_of_the_file() -> None:
    finding = fault("""
        dtypes: [I8, U8]
        rules:
          - from: w
            steps:
              - scale: {by: 2}
            to: {w: [12, 4]}
        """)
    assert finding.what == "the shapes cannot add up: scale: I8 is no float"


def test_one_dtype_is_enough_behind_a_reshape_too() -> None:
    body = """
        dtypes: [I8, F32]
        rules:
          - from: w
            steps:
              - reshape: {shape: [48]}
              - scale: {by: 2}
            to: {w: [48]}
        """
    assert faults(body) == ()
