from collections.abc import Sequence

import pytest
from tiny_rules import Shapes, misfit, misfits, parsed, planned

from converter.bind import bind
from converter.errors import PlanError, RuleError
from converter.finding import Finding
from converter.rules.settings import resolve
from converter.spec import TensorSpec
from converter.steps.cast import Cast

LAYERS = """
    dims: {layers: 4, hidden: 4}
    index: {i: layers}
    rules:
      - from: layers.{i}.weight
        to:
          blocks.{i}.weight: [hidden, 2]
    """


def layers(numbers: Sequence[int | str], shape: Sequence[int] = (4, 2)) -> dict[str, Sequence[int]]:
    return {f"layers.{i}.weight": shape for i in numbers}


def test_every_tensor_of_a_source_that_fits_is_accounted_for() -> None:
    plan = planned(
        LAYERS + "drop: [{name: mask, because: rebuilt}]", layers(range(4)) | {"mask": [2]}
    )
    assert [(b.sources, b.targets) for b in plan.bindings] == [
        ((f"layers.{i}.weight",), (f"blocks.{i}.weight",)) for i in range(4)
    ]
    assert [(d.name, d.because) for d in plan.dropped] == [("mask", "rebuilt")]
    assert plan.out_of_scope == 0


def test_a_missing_tensor_is_refused_with_what_was_expected() -> None:
    finding = misfit(LAYERS, layers([0, 1, 3]))
    assert finding == Finding(
        code="missing",
        what="a source tensor is missing",
        where="tiny.yaml:4",
        tensor="layers.2.weight",
        expected="F32 [4, 2]",
        got="no such name",
        hint="look for it with convert inspect; set dims or choose a --variant without it",
    )


def test_an_unexpected_tensor_in_scope_is_refused_with_what_it_is() -> None:
    finding = misfit(LAYERS, layers(range(4)) | {"head": TensorSpec("F16", (7,))})
    assert finding == Finding(
        code="unexpected",
        what="a tensor in scope that no rule takes or drops",
        where="tiny.yaml",
        tensor="head",
        expected="nothing of this name",
        got="F16 [7]",
        hint="set dims or choose a --variant that has it; or add a rule or a drop",
    )


def test_another_shape_is_refused_with_the_dims_that_make_it() -> None:
    finding = misfit(LAYERS, layers(range(4), (8, 2)))
    assert finding == Finding(
        code="shape",
        what="a source tensor has another shape",
        where="tiny.yaml:4",
        tensor="layers.{0..3}.weight",
        expected="[4, 2]",
        got="[8, 2]",
        hint="if the model is of another size, set its dims with --set or --dims: hidden",
    )


def test_the_dims_behind_derived_names_are_told() -> None:
    body = """
        dims: {hidden: 4, mult: 2, other: 1}
        derived: {half: hidden // 2, ffn: half * mult}
        rules: [{from: a, to: {b: [ffn]}}]
        """
    assert (misfit(body, {"a": [5]}).hint or "").endswith("--dims: hidden, mult")


def test_a_shape_that_no_dim_makes_has_other_rules() -> None:
    hint = misfit("rules: [{from: a, to: {b: [3]}}]", {"a": [5]}).hint
    assert hint == "if the model is of another size, its rules must differ"


def test_a_transposed_square_is_found_by_no_shape_but_any_other_transpose_is() -> None:
    body = "rules: [{from: a, steps: [transpose], to: {b: [2, 3]}}]"
    assert misfit(body, {"a": [2, 3]}).expected == "[3, 2]"


def test_a_dtype_that_the_file_does_not_allow_is_refused() -> None:
    finding = misfit(LAYERS, {f"layers.{i}.weight": TensorSpec("F64", (4, 2)) for i in range(4)})
    assert finding == Finding(
        code="dtype",
        what="a source tensor has a dtype that the rule file does not allow",
        where="tiny.yaml:4",
        tensor="layers.{0..3}.weight",
        expected="F32",
        got="F64",
        hint="add it to dtypes if the model really comes in it",
    )


def test_a_rule_may_narrow_the_dtypes() -> None:
    body = "dtypes: [F32, F16]\nrules: [{from: a, dtypes: [I64], to: {b: [1]}}]"
    assert planned(body, {"a": TensorSpec("I64", (1,))}).targets["b"].dtype == "I64"
    assert misfit(body, {"a": TensorSpec("F16", (1,))}).expected == "I64"


def test_a_hole_is_told_from_a_shift() -> None:
    missing, stray = misfits(LAYERS, layers([1, 2, 3, 4]))
    assert (missing.tensor, stray.tensor) == ("layers.0.weight", "layers.4.weight")
    assert missing.hint == "the source has 'layers.4.weight', which no rule names"
    assert stray.hint == "the rules name 'layers.{0..3}.weight': set the dim if the model has more"


def test_a_number_padded_with_zeros_is_another_name() -> None:
    missing, stray = misfits(LAYERS, layers([0, 1, 2, "03"]))
    assert (missing.tensor, stray.tensor) == ("layers.3.weight", "layers.03.weight")
    assert stray.hint == "the rules name 'layers.{0..3}.weight', without leading zeros"


def test_all_misfits_of_all_kinds_are_listed_at_once() -> None:
    source = layers([0, 2, 4]) | {"layers.1.weight": [9], "layers.3.bias": [4]}
    found = misfits(LAYERS, source)
    assert sorted((finding.code, finding.tensor or "") for finding in found) == [
        ("missing", "layers.3.weight"),
        ("shape", "layers.1.weight"),
        ("unexpected", "layers.3.bias"),
        ("unexpected", "layers.4.weight"),
    ]


def test_a_source_of_which_nothing_fits_is_refused_in_one_finding() -> None:
    finding = misfit(LAYERS, {"encoder.weight": [1], "decoder.weight": [1]})
    assert finding.what == "none of the 4 tensors that the rules name is in the source"
    assert finding.expected == "names such as layers.0.weight"
    assert finding.got == "2 tensors, such as decoder.weight"
    assert finding.hint == "look at the names with convert inspect; choose the model and --variant"


def test_an_empty_source_is_refused() -> None:
    assert misfit(LAYERS, {}).got == "an empty source"


def test_a_source_that_another_variant_names_is_told_so() -> None:
    body = """
        words: {g: weight}
        variants: {spelling: {modern: {}, legacy: {words: {g: gamma}}}}
        rules: [{from: "norm.{g}", to: {norm.weight: [1]}}]
        """
    hint = misfit(body, {"norm.gamma": [1], "norm.beta": [1]}).hint
    assert hint == "with --variant legacy the rules name 1 tensors of this source"


def test_a_variant_that_cannot_be_is_not_told() -> None:
    body = """
        dims: {n: 1}
        variants: {size: {one: {}, none: {dims: {n: 0}}}}
        require: [{that: n > 0, because: there is one}]
        rules: [{from: a, to: {b: [1]}}]
        """
    assert misfit(body, {"c": [1]}).code == "missing"


@pytest.mark.parametrize(
    ("prefix", "given", "hint"),
    [
        ("net.", {}, "the names of the source begin with 'net.': add --source-prefix net."),
        (
            "",
            {"source_prefix": "net."},
            "the names fit without 'net.': leave --source-prefix out",
        ),
        ("", {"scope": "m."}, "the names of the source are bare, without 'm.': add --scope ''"),
    ],
)
def test_the_option_that_would_make_a_source_fit_is_told(
    prefix: str, given: dict[str, str], hint: str
) -> None:
    source = {prefix + name: shape for name, shape in layers(range(4)).items()}
    assert misfit(LAYERS, source, **given).hint == hint


def test_a_source_prefix_is_one_that_every_name_carries() -> None:
    source = {f"net.{name}": shape for name, shape in layers(range(4)).items()}
    assert len(planned(LAYERS, source, source_prefix="net.").bindings) == 4
    finding = misfit(LAYERS, source | {"ema.layers.0.weight": [4, 2]}, source_prefix="net.")
    assert finding.code == "source-prefix"
    assert finding.where == "--source-prefix"
    assert finding.tensor == "ema.layers.0.weight"
    assert finding.expected == "names that begin with 'net.'"


SCOPES: Sequence[tuple[str, str]] = (
    ("m.", "a"),
    ("[m., n.]", "m.a"),
    ("{except: [x., y.]}", "m.a"),
)


@pytest.mark.parametrize(("scope", "name"), SCOPES)
def test_what_is_out_of_scope_is_counted_and_nothing_else(scope: str, name: str) -> None:
    body = f"scope: {scope}\nrules: [{{from: {name}, to: {{b: [1]}}}}]"
    plan = planned(body, {"m.a": [1], "x.a": [1], "y.b": [9]})
    assert plan.out_of_scope == 2
    assert plan.used == 1


@pytest.mark.parametrize(("scope", "name"), SCOPES)
def test_a_stray_in_scope_is_refused_whatever_the_scope(scope: str, name: str) -> None:
    body = f"scope: {scope}\nrules: [{{from: {name}, to: {{b: [1]}}}}]"
    assert misfit(body, {"m.a": [1], "m.b": [1], "x.a": [1]}).tensor == "m.b"


def test_the_scope_of_a_bare_file_may_be_empty() -> None:
    body = "scope: m.\nrules: [{from: a, to: {b: [1]}}]"
    assert planned(body, {"a": [1]}, scope="").used == 1
    assert misfit(body, {"a": [1], "z": [1]}, scope="").tensor == "z"


EXPERTS = """
    dims: {experts: 4, hidden: 2}
    index: {e: experts}
    rules:
      - from: experts.{e}.weight
        gather: e
        steps:
          - stack: {dim: 0}
        to:
          experts.weight: [experts, hidden, 3]
    """


def experts(*numbers: int) -> Shapes:
    return {f"experts.{e}.weight": [2, 3] for e in numbers}


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0, 1, 3), [("missing", "experts.2.weight")]),
        ((0, 1, 3, 4), [("missing", "experts.2.weight"), ("unexpected", "experts.4.weight")]),
        ((1, 2, 3, 4), [("missing", "experts.0.weight"), ("unexpected", "experts.4.weight")]),
        ((0, 1, 2, 3, 4), [("unexpected", "experts.4.weight")]),
        ((0, 7), [("missing", "experts.{1..3}.weight"), ("unexpected", "experts.7.weight")]),
    ],
)
def test_experts_are_all_of_their_numbers_and_no_others(
    numbers: tuple[int, ...], expected: list[tuple[str, str]]
) -> None:
    found = misfits(EXPERTS, experts(*numbers))
    assert [(finding.code, finding.tensor) for finding in found] == expected


def test_experts_are_stacked_in_the_order_of_integers() -> None:
    plan = planned(EXPERTS, experts(10, 2, *range(2), *range(3, 10), 11), dims={"experts": 12})
    assert plan.bindings[0].sources == tuple(f"experts.{e}.weight" for e in range(12))
    assert plan.targets["experts.weight"].shape == (12, 2, 3)


def test_experts_of_other_numbers_altogether_are_refused() -> None:
    finding = misfit(EXPERTS, experts(10, 11, 12, 13))
    assert finding.what == "none of the 4 tensors that the rules name is in the source"


def test_one_expert_of_another_shape_is_refused_by_name() -> None:
    finding = misfit(EXPERTS, {**experts(0, 1, 2), "experts.3.weight": [2, 4]})
    assert finding.tensor == "experts.3.weight"
    assert (finding.expected, finding.got) == ("[2, 3]", "[2, 4]")


def test_scattered_targets_are_cut_from_one_source() -> None:
    body = """
        dims: {parts: 3}
        index: {e: parts}
        rules:
          - from: fused
            scatter: e
            steps: [{chunk: {dim: 0, chunks: parts}}]
            to: {"part.{e}": [2, 5]}
        """
    plan = planned(body, {"fused": [6, 5]})
    assert list(plan.targets) == ["part.0", "part.1", "part.2"]
    assert misfit(body, {"fused": [7, 5]}).expected == "[6, 5]"


JOINED = "rules: [{from: [a, b], steps: [{concat: {dim: 0}}], to: {c: [6, 2]}}]"


def test_shapes_that_only_the_source_can_tell_are_inferred_from_it() -> None:
    plan = planned(JOINED, {"a": [2, 2], "b": [4, 2]})
    assert plan.targets["c"].shape == (6, 2)


def test_an_inferred_shape_that_differs_from_the_declared_is_refused() -> None:
    finding = misfit(JOINED, {"a": [2, 2], "b": [3, 2]})
    assert finding.what == "the steps lead to other shapes than the rule declares"
    assert finding.tensor == "c"
    assert finding.expected == "[6, 2]"
    assert finding.got == "[5, 2] from F32 [2, 2], F32 [3, 2]"


def test_a_step_that_cannot_take_the_source_is_refused_with_its_sources() -> None:
    finding = misfit(JOINED, {"a": [2, 2], "b": [4, 3]})
    assert finding.code == "step"
    assert finding.where == "tiny.yaml:1"
    assert finding.tensor == "a, b"
    assert finding.expected == "[4, 2]"
    assert finding.got == "[4, 3]"
    assert finding.hint is not None


def test_misfits_of_steps_are_folded_over_the_layers() -> None:
    body = """
        index: {i: 9}
        rules:
          - from: ["a.{i}", "b.{i}"]
            steps: [{concat: {dim: 0}}]
            to: {"c.{i}": [6]}
        """
    finding = misfit(body, {f"{x}.{i}": [2] for x in "ab" for i in range(9)})
    assert finding.tensor == "c.{0..8}"


ABSENT = """
    rules:
      - {from: a, to: {x: [1]}}
      - from: [b, c]
        absent: zeros
        to: {y: [2], z: [3]}
    """


def test_what_is_absent_is_stood_in_for_and_recorded() -> None:
    plan = planned(ABSENT, {"a": [1]}, dtype="BF16")
    binding = plan.bindings[1]
    assert binding.stand_in is not None
    assert binding.stand_in.fill == "zeros"
    assert binding.absent == ("b", "c")
    assert binding.sources == ()
    assert plan.targets["y"] == TensorSpec("BF16", (2,))


def test_what_is_there_is_taken_though_it_might_be_absent() -> None:
    plan = planned(ABSENT, {"a": [1], "b": [2], "c": [3]})
    assert plan.bindings[1].stand_in is None
    assert misfit(ABSENT, {"a": [1], "b": [2], "c": [4]}).tensor == "c"


def test_what_is_absent_in_part_is_missing() -> None:
    assert misfit(ABSENT, {"a": [1], "b": [2]}).tensor == "c"


def test_a_constant_has_no_source() -> None:
    body = """
        rules:
          - {from: a, to: {x: [1]}}
          - {steps: [{constant: {value: 1, shape: [2, 2], dtype: F16}}], to: {y: [2, 2]}}
        """
    assert planned(body, {"a": [1]}).targets["y"] == TensorSpec("F16", (2, 2))


DROPS = """
    drop:
      - {name: ramp, expect: arange, because: rebuilt}
      - {name: old, optional: true, because: of old checkpoints}
      - {name: training.**, count: 3, because: of training alone}
      - {name: training.step, because: counted while training}
    """
DROPPED = {"a": [1], "ramp": [9], **{f"training.{n}": [1] for n in ("m", "v", "w", "step")}}


def test_drops_are_named_optional_or_counted() -> None:
    plan = planned(DROPS, DROPPED | {"old": [1]})
    assert [(d.name, d.expect) for d in plan.dropped] == [
        ("ramp", "arange"),
        ("old", None),
        *((f"training.{n}", None) for n in ("m", "v", "w")),
        ("training.step", None),
    ]
    assert len(planned(DROPS, DROPPED).dropped) == 5


def test_a_drop_that_is_not_optional_must_be_there() -> None:
    finding = misfit(DROPS, {name: shape for name, shape in DROPPED.items() if name != "ramp"})
    assert finding.what == "a source tensor that would be dropped is missing"
    assert finding.where == "tiny.yaml:2"


@pytest.mark.parametrize(
    ("source", "got"),
    [
        (DROPPED | {"training.x": [1]}, "4: training.m, training.v, training.w, training.x"),
        ({"a": [1], "ramp": [9], "training.step": [1]}, "none"),
    ],
)
def test_a_wildcard_drops_as_many_as_it_counts(source: Shapes, got: str) -> None:
    finding = misfit(DROPS, source)
    assert finding.code == "count"
    assert finding.tensor == "training.**"
    assert (finding.expected, finding.got) == ("3", got)


def test_a_wildcard_leaves_what_rules_take() -> None:
    body = """
        rules: [{from: x.a, to: {b: [1]}}]
        drop: [{name: x.**, count: 1, because: the rest}]
        """
    assert [d.name for d in planned(body, {"x.a": [1], "x.b": [1]}).dropped] == ["x.b"]


def test_an_optional_wildcard_drops_all_or_none() -> None:
    body = "drop: [{name: x.**, count: 2, optional: true, because: the rest}]"
    assert planned(body, {"a": [1]}).dropped == ()
    assert misfit(body, {"a": [1], "x.b": [1]}).got == "1: x.b"


def test_a_wildcard_drops_nothing_out_of_scope() -> None:
    body = """
        scope: {except: [x.y.]}
        drop: [{name: x.**, count: 1, because: the rest}]
        """
    assert [d.name for d in planned(body, {"a": [1], "x.a": [1], "x.y.a": [1]}).dropped] == ["x.a"]


TWINS = "drop: [{name: twin, optional: true, expect: {equals: a}, because: the same tensor}]"


def test_a_dropped_twin_is_bound_to_what_it_must_equal() -> None:
    assert planned(TWINS, {"a": [1], "twin": [1]}).dropped[0].equals == "a"
    assert planned(TWINS, {"a": [1]}).dropped == ()


def test_a_twin_of_what_is_not_there_is_refused() -> None:
    body = "rules: [{from: c, to: {b: [1]}}]\n" + TWINS
    finding = misfit(body, {"c": [1], "twin": [1]})
    assert finding.what == "a tensor that must equal another is there, but the other is not"
    assert finding.tensor == "a"


@pytest.mark.parametrize("spec", [TensorSpec("F32", (2,)), TensorSpec("F16", (1,))])
def test_a_twin_that_cannot_be_one_is_refused_by_its_header(spec: TensorSpec) -> None:
    finding = misfit(TWINS, {"a": [1], "twin": spec})
    assert finding.what == "a tensor that would be dropped cannot equal another"
    assert finding.expected == "F32 [1], as a"
    assert finding.got == str(spec)


def test_a_vector_is_no_lower_triangle() -> None:
    body = "drop: [{name: mask, expect: lower_triangular, because: rebuilt}]"
    finding = misfit(body, {"a": [1], "mask": [4]})
    assert finding.what == "a tensor that would be dropped cannot be lower_triangular"
    assert finding.got == "F32 [4]"


def test_values_of_less_than_a_byte_are_no_ramp() -> None:
    body = "drop: [{name: ramp, expect: arange, because: rebuilt}]"
    finding = misfit(body, {"a": [1], "ramp": TensorSpec("F4", (4,))})
    assert finding.what == "a tensor that would be dropped cannot be arange"


MIXED = """
    dtypes: [F32, F16, I64]
    rules:
      - {from: weight, to: {weight: [1]}}
      - {from: table, keep_dtype: true, to: {table: [1]}}
      - {from: ids, to: {ids: [1]}}
    """


def test_a_dtype_is_for_every_float_that_is_not_kept() -> None:
    source: Shapes = {"weight": [1], "table": [1], "ids": TensorSpec("I64", (1,))}
    plan = planned(MIXED, source, dtype="BF16")
    assert {name: spec.dtype for name, spec in plan.targets.items()} == {
        "weight": "BF16",
        "table": "F32",
        "ids": "I64",
    }
    assert [binding.steps for binding in plan.bindings] == [(Cast("BF16"),), (), ()]


def test_a_tensor_that_has_the_dtype_already_is_not_cast() -> None:
    plan = planned("rules: [{from: a, to: {b: [1]}}]", {"a": [1]}, dtype="F32")
    assert plan.bindings[0].steps == ()


def test_tensors_of_one_rule_are_cast_together_or_not_at_all() -> None:
    body = "dtypes: [F32, F16, I64]\nrules: [{from: [a, b], to: {c: [1], d: [1]}}]"
    plan = planned(body, {"a": [1], "b": TensorSpec("F16", (1,))}, dtype="BF16")
    assert {spec.dtype for spec in plan.targets.values()} == {"BF16"}
    finding = misfit(body, {"a": [1], "b": TensorSpec("I64", (1,))}, dtype="BF16")
    assert finding.what.endswith("--dtype BF16 is for some of them only")
    assert finding.hint == "give each its own rule"


def test_what_cannot_be_cast_is_refused_by_its_header() -> None:
    body = "dtypes: [F8_E8M0]\nrules: [{from: a, to: {b: [1]}}]"
    finding = misfit(body, {"a": TensorSpec("F8_E8M0", (1,))}, dtype="F32")
    assert finding.what.endswith("cast: F8_E8M0 cannot be cast")
    assert finding.where == "tiny.yaml:2"


def test_faults_of_the_rule_file_come_before_any_header() -> None:
    rule_file = parsed("rules: [{from: a, to: {b: [1]}}, {from: c, to: {b: [1]}}]")
    with pytest.raises(RuleError, match="two sources for one target"):
        bind(rule_file, {}, resolve(rule_file))


def test_dims_that_make_rules_collide_are_the_callers() -> None:
    body = 'dims: {n: 1}\nindex: {i: n}\nrules: [{from: "a.{i}", to: {b: [1]}}]'
    assert planned(body, {"a.0": [1]}).used == 1
    assert misfit(body, {"a.0": [1]}, dims={"n": 2}).what == "two sources for one target"


def test_names_of_strangers_are_listed_whatever_they_hold() -> None:
    source = layers(range(4)) | {"a#b": [1], "a1b": [1], "a{0..1}": [1], "ünï": [1]}
    (finding,) = misfits(LAYERS, source)
    assert finding.tensor == "a#b, a1b, a{0..1}, ünï"


def test_shards_are_filled_in_execution_order() -> None:
    rule_file = parsed(LAYERS)
    source = {name: TensorSpec("F32", (4, 2)) for name in layers(range(4))}
    plan = bind(rule_file, source, resolve(rule_file), max_shard_bytes=64)
    assert [[p.name for p in shard.placements] for shard in plan.shards] == [
        ["blocks.0.weight", "blocks.1.weight"],
        ["blocks.2.weight", "blocks.3.weight"],
    ]
    assert plan.shards[0].file == "model-00001-of-00002.safetensors"


def test_a_plan_of_a_hundred_thousand_tensors_is_made() -> None:
    body = """
        dims: {layers: 1000, experts: 100}
        index: {i: layers, e: experts}
        rules: [{from: "layers.{i}.experts.{e}.w", to: {"blocks.{i}.experts.{e}.w": [2, 2]}}]
        """
    names = [f"layers.{i}.experts.{e}.w" for i in range(1000) for e in range(100)]
    plan = planned(body, dict.fromkeys(names, (2, 2)))
    assert len(plan.bindings) == 100_000


def test_thousands_of_misfits_are_folded_into_few() -> None:
    body = """
        dims: {layers: 200, experts: 100}
        index: {i: layers, e: experts}
        rules: [{from: "layers.{i}.experts.{e}.w", to: {"blocks.{i}.experts.{e}.w": [2, 2]}}]
        """
    names = [f"layers.{i}.experts.{e}.w" for i in range(1, 201) for e in range(100)]
    with pytest.raises(PlanError) as caught:
        planned(body, dict.fromkeys(names, (2, 3)))
    assert [(f.code, f.tensor) for f in caught.value.findings] == [
        ("missing", "layers.0.experts.{0..99}.w"),
        ("shape", "layers.{1..199}.experts.{0..99}.w"),
        ("unexpected", "layers.200.experts.{0..99}.w"),
    ]
