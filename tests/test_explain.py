"""One tensor traced both ways, by a manifest and by a plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rules import header, planned
from toy import convert, one, toy_tensors, write_rules
from toy_bundle import convert_toys, write_toys

from converter import api
from converter.digest import sha256
from converter.errors import MismatchError, PlanError, SourceError, UsageError
from converter.explain import Explanation, Role, Trace
from converter.explain_manifest import explain_manifest
from converter.explain_plan import explain_plan
from converter.manifest import Manifest
from converter.source.manifest_file import read_manifest
from converter.spec import TensorSpec

HEADERS = Path(__file__).parent / "headers"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy's source, its rules and what was made of them, in ``out``."""
    made = tmp_path_factory.mktemp("explain")
    convert(made, toy_tensors())
    return made


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return read_manifest(folder / "out" / "manifest.json")


def by_manifest(folder: Path, name: str) -> Explanation:
    return api.explain(name, folder / "out")


def by_plan(folder: Path, name: str, **options: Any) -> Explanation:
    return api.explain(name, folder / "toy.safetensors", rules=folder / "toy.yaml", **options)


def role(explanation: Explanation) -> Role:
    (found,) = explanation.roles
    return found


def trace(explanation: Explanation) -> Trace:
    found = role(explanation).trace
    assert found is not None
    return found


def f32(*shape: int) -> TensorSpec:
    return TensorSpec("F32", shape)


# By manifest and by plan alike


@pytest.mark.parametrize("explain", [by_manifest, by_plan])
@pytest.mark.parametrize("name", ["net.layers.1.qkv", "blocks.1.k.weight"])
def test_a_fused_source_and_each_of_its_parts_show_the_whole_rule(
    folder: Path, explain: Any, name: str
) -> None:
    found = trace(explain(folder, name))
    assert found.sources == (("net.layers.1.qkv", f32(12, 4)),)
    (stage,) = found.stages
    assert (stage.name, stage.parameters) == ("split", {"dim": 0, "sizes": [4, 4, 4]})
    assert stage.specs == (f32(4, 4),) * 3
    assert [target.name for target in found.targets] == [f"blocks.1.{x}.weight" for x in "qkv"]


@pytest.mark.parametrize("explain", [by_manifest, by_plan])
def test_what_is_made_of_two_sources_is_traced_to_both(folder: Path, explain: Any) -> None:
    found = trace(explain(folder, "blocks.0.out.weight"))
    assert found.sources == (("net.layers.0.g", f32(4, 1)), ("net.layers.0.v", f32(4, 4)))
    assert [(stage.name, stage.specs) for stage in found.stages] == [
        ("fold_weight_norm", (f32(4, 4),))
    ]


@pytest.mark.parametrize("explain", [by_manifest, by_plan])
def test_what_is_only_renamed_has_no_steps(folder: Path, explain: Any) -> None:
    found = trace(explain(folder, "mask"))
    assert found.stages == ()
    assert found.sources == (("net.mask", TensorSpec("BOOL", (3,))),)


@pytest.mark.parametrize("explain", [by_manifest, by_plan])
def test_an_alias_is_traced_as_the_tensor_that_it_is(folder: Path, explain: Any) -> None:
    found = role(explain(folder, "head.weight"))
    assert (found.kind, found.of) == ("alias", "embedding.weight")
    assert found.trace is not None
    assert found.trace.sources == (("net.embedding", f32(6, 4)),)


@pytest.mark.parametrize("explain", [by_manifest, by_plan])
@pytest.mark.parametrize(
    ("name", "value", "because", "spec"),
    [
        ("net.positions", "arange", "rebuilt by the network", TensorSpec("I64", (16,))),
        ("net.head", "equals net.embedding", "the head is tied", f32(6, 4)),
    ],
)
def test_a_dropped_tensor_has_its_reason_and_what_it_was_shown_to_be(
    folder: Path, explain: Any, name: str, value: str, because: str, spec: TensorSpec
) -> None:
    found = role(explain(folder, name))
    assert (found.kind, found.trace) == ("dropped", None)
    assert (found.value, found.because, found.spec) == (value, because, spec)


@pytest.mark.parametrize("explain", [by_manifest, by_plan])
@pytest.mark.parametrize("name", ["blocks.1.norm.weight", "net.layers.1.norm"])
def test_a_stand_in_names_the_sources_that_are_absent(
    folder: Path, explain: Any, name: str
) -> None:
    explanation = explain(folder, name)
    found = trace(explanation)
    assert role(explanation).kind == ("canonical" if name.startswith("blocks") else "absent")
    assert (found.fill, found.absent, found.sources) == ("ones", ("net.layers.1.norm",), ())
    assert [target.name for target in found.targets] == ["blocks.1.norm.weight"]


@pytest.mark.parametrize("explain", [by_manifest, by_plan])
def test_a_name_may_end_in_stars_for_all_that_begin_so(folder: Path, explain: Any) -> None:
    found = explain(folder, "blocks.0.**").roles
    assert {item.name for item in found} == {f"blocks.0.{x}.weight" for x in ("q", "k", "v")} | {
        "blocks.0.out.weight",
        "blocks.0.norm.weight",
    }
    fused = [item for item in found if item.name[9] in "qkv"]
    assert len({id(item.trace) for item in fused}) == 1


@pytest.mark.parametrize("explain", [by_manifest, by_plan])
@pytest.mark.parametrize(
    ("name", "near"),
    [("layers.0.qkv", "net.layers.0.qkv"), ("blocks.0.q.weigth", "blocks.0.q.weight")],
)
def test_an_unknown_name_is_refused_with_what_may_be_meant(
    folder: Path, explain: Any, name: str, near: str
) -> None:
    with pytest.raises(UsageError, match="no tensor of that name") as caught:
        explain(folder, name)
    assert caught.value.exit_code == 2
    assert caught.value.findings[0].hint == f"did you mean {near!r}?"


@pytest.mark.parametrize("explain", [by_manifest, by_plan])
def test_no_name_begins_so(folder: Path, explain: Any) -> None:
    with pytest.raises(UsageError, match="no tensor of that name"):
        explain(folder, "blokcs.**")


def test_a_name_of_both_sides_is_explained_as_both(tmp_path: Path) -> None:
    convert(tmp_path, {"w": torch.zeros(3) + torch.arange(3)}, one("F32", "[3]"))
    for explain in (by_manifest, by_plan):
        kinds = [item.kind for item in explain(tmp_path, "w").roles]
        assert kinds == ["canonical", "source"]


def test_a_plan_says_where_everything_comes_to_lie(folder: Path, manifest: Manifest) -> None:
    plan = by_plan(folder, "**")
    places = {
        target.name: (target.file, target.offset, target.spec)
        for item in plan.roles
        if item.trace
        for target in item.trace.targets
    }
    assert places == {
        record.name: (record.file, record.offset, record.spec) for record in manifest.tensors
    }


def test_every_name_of_a_plan_has_a_role(folder: Path) -> None:
    plan = by_plan(folder, "**")
    names = {item.name for item in plan.roles if item.kind not in ("canonical", "alias", "absent")}
    assert names == set(toy_tensors())


# By manifest


def test_a_digest_and_an_offset_are_those_of_the_file(folder: Path) -> None:
    target = trace(by_manifest(folder, "blocks.1.v.weight")).targets[2]
    data = (folder / "out" / target.file).read_bytes()
    assert target.sha256 == sha256(data[target.offset : target.offset + target.spec.nbytes])
    assert target.stats is not None
    values = toy_tensors()["net.layers.1.qkv"][8:]
    assert target.stats.min == values.min().item()
    assert target.stats.max == values.max().item()


def test_a_manifest_counts_what_was_out_of_scope_but_has_no_names(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        by_manifest(folder, "optimizer")
    assert "1 more of the source were out of scope" in str(caught.value)


def test_nothing_but_the_manifest_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((folder / "out" / "manifest.json").read_bytes())
    whole = by_manifest(folder, "mask")
    assert api.explain("mask", tmp_path) == whole
    assert api.explain("mask", tmp_path / "manifest.json") == whole
    assert whole.files == ("toy.safetensors",)


def test_steps_that_are_not_known_here_are_shown_without_shapes(manifest: Manifest) -> None:
    steps = ({"transmogrify": {"times": 2}}, {"transpose": {"dims": [0, 1]}})
    tensors = tuple(replace(record, steps=steps) for record in manifest.tensors)
    explanation = explain_manifest("blocks.0.q.weight", replace(manifest, tensors=tensors))
    stages = trace(explanation).stages
    assert [(stage.name, stage.specs) for stage in stages] == [
        ("transmogrify", None),
        ("transpose", None),
    ]
    assert stages[0].parameters == {"times": 2}


def test_steps_that_cannot_take_their_sources_are_shown_without_shapes(
    manifest: Manifest,
) -> None:
    steps = ({"split": {"dim": 0, "sizes": [5, 5]}}, {"transpose": {"dims": [0, 1]}})
    tensors = tuple(replace(record, steps=steps) for record in manifest.tensors)
    explanation = explain_manifest("blocks.0.q.weight", replace(manifest, tensors=tensors))
    assert [stage.specs for stage in trace(explanation).stages] == [None, None]


def test_sources_whose_shape_the_manifest_lacks_are_shown_without_it(manifest: Manifest) -> None:
    tensors = tuple(replace(record, source_specs=()) for record in manifest.tensors)
    found = trace(explain_manifest("blocks.0.q.weight", replace(manifest, tensors=tensors)))
    assert found.sources == (("net.layers.0.qkv", None),)
    assert found.stages[0].specs is None


# By plan


@pytest.mark.parametrize(
    ("name", "index"), [("blocks.1.q.weight", {"i": 1}), ("embedding.weight", {})]
)
def test_a_plan_names_the_rule_and_its_indices(
    folder: Path, name: str, index: Mapping[str, int]
) -> None:
    found = trace(by_plan(folder, name))
    assert found.where is not None
    path, _, line = found.where.rpartition(":")
    text = Path(path).read_text().splitlines()[int(line) - 1]
    assert text.strip().startswith("- from:")
    assert found.indices == index


def test_a_plan_names_what_is_out_of_scope(folder: Path) -> None:
    found = role(by_plan(folder, "optimizer"))
    assert (found.kind, found.trace) == ("out-of-scope", None)
    assert found.because == "in scope are names that begin with 'net.'"
    assert found.spec == f32(3)


def test_a_plan_says_why_an_alias_is_one(folder: Path) -> None:
    found = role(by_plan(folder, "head.weight"))
    assert found.because == "the head is tied"
    assert found.where is not None
    assert "toy.yaml:" in found.where


def test_options_of_a_conversion_are_options_of_its_explanation(folder: Path) -> None:
    found = trace(by_plan(folder, "blocks.0.q.weight", dtype="bf16", max_shard_size="200"))
    assert [stage.name for stage in found.stages] == ["split", "cast"]
    assert found.stages[1].specs == (TensorSpec("BF16", (4, 4)),) * 3
    assert found.targets[0].file.startswith("model-0000")


def explained(body: str, shapes: Mapping[str, Any], name: str, **choices: Any) -> Trace:
    plan = planned(body, shapes, **choices)
    return trace(explain_plan(name, plan, header(shapes)))


def test_the_words_of_a_set_are_told_on_both_sides() -> None:
    rules = """
    dims: {layers: 2}
    index: {i: layers}
    rules:
      - from: "{i}.{p}.w"
        sets: {p: {query: q, key: k}}
        to: {"b.{i}.{p}": [2]}
    """
    shapes = {f"{i}.{p}.w": [2] for i in range(2) for p in ("query", "key")}
    found = explained(rules, shapes, "b.1.k")
    assert (found.indices, found.words) == ({"i": 1}, {"p": ("key", "k")})


def test_an_index_that_lists_tensors_has_no_one_value() -> None:
    rules = """
    dims: {layers: 2, experts: 3}
    index: {i: layers, e: experts}
    rules:
      - from: "{i}.experts.{e}"
        gather: e
        steps: [stack: {dim: 0}]
        to: {"b.{i}": [experts, 4]}
    """
    shapes = {f"{i}.experts.{e}": [4] for i in range(2) for e in range(3)}
    found = explained(rules, shapes, "1.experts.2")
    assert found.indices == {"i": 1}
    assert [name for name, _ in found.sources] == [f"1.experts.{e}" for e in range(3)]


def test_scattered_tensors_are_all_shown() -> None:
    rules = """
    dims: {layers: 2, experts: 3}
    index: {i: layers, e: 1..experts}
    rules:
      - from: "{i}.experts"
        scatter: e
        steps: [unstack: {dim: 0}]
        to: {"b.{i}.{e}": [4]}
    """
    found = explained(rules, {f"{i}.experts": [3, 4] for i in range(2)}, "b.1.3")
    assert found.indices == {"i": 1}
    assert [target.name for target in found.targets] == [f"b.1.{e}" for e in (1, 2, 3)]


def test_placeholders_with_arithmetic_have_the_index_that_they_were_made_of() -> None:
    rules = """
    dims: {layers: 4}
    index: {i: layers}
    rules:
      - from: "up.{layers - 1 - i}"
        to: {"stages.{i // 2}.{i % 2}": [1]}
    """
    found = explained(rules, {f"up.{i}": [1] for i in range(4)}, "up.0")
    assert found.indices == {"i": 3}
    assert found.targets[0].name == "stages.1.1"


def test_excluded_prefixes_explain_what_is_out_of_scope() -> None:
    rules = """
    scope: {except: [optimizer.]}
    rules:
      - {from: a, to: {b: [1]}}
    """
    shapes = {"net.a": [1], "net.optimizer.x": [1]}
    plan = planned(rules, shapes, source_prefix="net.")
    found = role(explain_plan("net.optimizer.x", plan, header(shapes)))
    assert found.because == (
        "in scope are names that begin with 'net.', but none that begin with 'net.optimizer.'"
    )


def test_every_tensor_of_a_whole_model_is_explained() -> None:
    source = HEADERS / "s2mel.json"
    plan = api.plan(source, model="dit", source_prefix="net.")
    explanation = api.explain("**", source, model="dit", source_prefix="net.")
    kinds = [item.kind for item in explanation.roles]
    assert kinds.count("canonical") == len(plan.targets) > 200
    assert kinds.count("source") == plan.used
    assert kinds.count("dropped") == len(plan.dropped)
    assert kinds.count("out-of-scope") == plan.out_of_scope > 0
    for item in explanation.roles:
        if item.kind == "canonical" and item.name.startswith("blocks."):
            assert item.trace is not None
            assert item.trace.indices["i"] == int(item.name.split(".")[1])


# What cannot be explained


def test_a_checkpoint_needs_rules(folder: Path) -> None:
    with pytest.raises(UsageError, match="without rules") as caught:
        api.explain("w", folder / "toy.safetensors")
    assert "--model NAME or --rules FILE" in str(caught.value)


def test_options_of_rules_without_rules_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="exactly one of a model and a rule file"):
        api.explain("w", folder / "out", variant="legacy")


def test_rules_that_do_not_fit_say_how(folder: Path) -> None:
    with pytest.raises(PlanError, match="missing"):
        by_plan(folder, "mask", dims={"layers": 3})


@pytest.mark.parametrize("name", ["absent", "absent.safetensors"])
def test_what_is_not_there_is_told_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="no such file"):
        api.explain("w", tmp_path / name)


def test_a_directory_without_manifest_is_not_explained(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no manifest\.json"):
        api.explain("w", tmp_path)


def test_a_bundle_is_explained_by_its_members(tmp_path: Path) -> None:
    write_toys(tmp_path)
    convert_toys(tmp_path)
    with pytest.raises(SourceError, match="one of its members"):
        api.explain("mask", tmp_path / "out")
    assert role(api.explain("mask", tmp_path / "out" / "left")).kind == "canonical"


@pytest.mark.parametrize("text", [b"", b"{}", b'{"format": 99}', b"\xff"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(SourceError):
        api.explain("w", tmp_path)


def test_a_manifest_that_contradicts_itself_is_refused(folder: Path, tmp_path: Path) -> None:
    text = (folder / "out" / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(text.replace('"offset": 4096', '"offset": 8192', 1))
    with pytest.raises(MismatchError, match="offset"):
        api.explain("mask", tmp_path)


def test_a_header_alone_is_enough_for_a_plan(folder: Path, tmp_path: Path) -> None:
    tensors = {
        name: {"dtype": spec.dtype, "shape": list(spec.shape)}
        for name, spec in api.inspect(folder / "toy.safetensors").header.items()
    }
    (tmp_path / "header.json").write_text(json.dumps(tensors))
    rules = write_rules(tmp_path)
    found = api.explain("mask", tmp_path / "header.json", rules=rules)
    assert trace(found).targets == trace(by_plan(folder, "mask")).targets
