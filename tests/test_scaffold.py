"""A rule file begun from a header: what it states, what it asks, and what it never guesses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import api, scaffold
from converter.bind import bind
from converter.errors import PlanError, RuleError, SourceError
from converter.rules import lint, parse
from converter.rules.settings import resolve
from converter.scaffold import Scaffold
from converter.spec import DTYPES, Header, Shape, TensorSpec

HEADERS = Path(__file__).parent / "headers"


def header_of(tensors: Mapping[str, Sequence[int]], dtype: str = "F32") -> Header:
    return {name: TensorSpec(dtype, tuple(shape)) for name, shape in tensors.items()}


def begun(header: Header, **options: Any) -> Scaffold:
    return scaffold.scaffold(header, **{"model": "m", "origin": "m.safetensors", **options})


def decided(text: str) -> str:
    """Name what each rule makes by its number, and by its indices, which count from 0."""
    head, *rules = text.replace('title: "?"', "title: A model").split("  - from: ")
    return "  - from: ".join([head, *(named(head, n, rule) for n, rule in enumerate(rules))])


def named(head: str, number: int, rule: str) -> str:
    source, _, rest = rule.partition("\n")
    name = f"r_{number}"
    for hole in re.findall(r"\{([^}]*)\}", source):
        letter = hole.split()[-1]
        own = re.search(rf"index: {{.*\b{letter}: ([0-9]+)\.\.", rest)
        whole = re.search(rf"^  {letter}: ([0-9]+)\.\.", head, re.MULTILINE)
        own_count = re.search(rf"index: {{.*\b{letter}: ", rest)
        first = own or (None if own_count else whole)
        name += f".{{{letter} - {first[1]}}}" if first else f".{{{letter}}}"
    return rule.replace('      "?": ', f'      "{name}": ')


def assert_fits(text: str, header: Header) -> None:
    """Assert that the rules have no fault, and make each tensor of the header as it is."""
    rule_file = parse.parse(text.encode(), "m.yaml")
    assert lint.lint_file(rule_file).findings == ()
    plan = bind(rule_file, header, resolve(rule_file))
    assert (plan.used, plan.out_of_scope, len(plan.dropped)) == (len(header), 0, 0)
    made = {b.sources: [plan.targets[name] for name in b.targets] for b in plan.bindings}
    assert made == {(name,): [spec] for name, spec in header.items()}


def undecided(text: str) -> list[str]:
    with pytest.raises(RuleError) as caught:
        parse.parse(text.encode(), "m.yaml")
    assert {finding.code for finding in caught.value.findings} == {"undecided"}
    return [finding.what for finding in caught.value.findings]


SEGMENT = st.text("abcxyz_", min_size=1, max_size=3)
NUMBERED = st.builds("{}{}".format, SEGMENT, st.integers(0, 9))
PART = st.one_of(SEGMENT, NUMBERED, st.integers(0, 12).map(str), st.just("007"))
NAME = st.lists(PART, min_size=1, max_size=4).map(".".join)
SHAPE = st.lists(st.sampled_from([1, 2, 3, 8, 12, 24, 512, 1536]), max_size=3).map(tuple)
SPEC = st.builds(TensorSpec, st.sampled_from(["F32", "BF16", "I64", "BOOL"]), SHAPE)


@st.composite
def layered(draw: st.DrawFn) -> dict[str, TensorSpec]:
    """A list of layers, some with gaps or shapes of their own, and a few tensors beside it."""
    found: dict[str, TensorSpec] = {}
    for leaf in draw(st.lists(SEGMENT, min_size=1, max_size=3, unique=True)):
        spec, first = draw(SPEC), draw(st.integers(0, 2))
        for number in range(first, draw(st.integers(1, 7)), draw(st.integers(1, 3))):
            other = draw(st.booleans()) and draw(st.booleans())
            found[f"h.{number}.{leaf}"] = draw(SPEC) if other else spec
    return found


@settings(max_examples=60, deadline=None)
@given(st.builds(lambda a, b: {**a, **b}, layered(), st.dictionaries(NAME, SPEC, max_size=8)))
def test_any_header_once_decided_is_without_fault_and_fits(header: dict[str, TensorSpec]) -> None:
    if not header:
        return
    made = begun(header)
    assert len(undecided(made.text)) == made.undecided
    assert_fits(decided(made.text), header)


@pytest.mark.parametrize("path", sorted(HEADERS.glob("*.json")), ids=lambda path: path.stem)
def test_a_real_header_once_decided_is_without_fault_and_fits(path: Path) -> None:
    header = api.inspect(path).header
    made = begun(header)
    assert made.tensors == len(header)
    assert made.patterns < len(header) / 2 or len(header) < 100
    assert_fits(decided(made.text), header)


def test_a_scaffold_asks_one_decision_per_rule_and_the_title() -> None:
    made = begun(header_of({"h.0.w": [16, 16], "h.1.w": [16, 16], "b": [5]}))
    assert undecided(made.text) == [
        "it is not decided what title is",
        "it is not decided what h.{i}.w becomes",
        "it is not decided what b becomes",
    ]
    assert made.undecided == 3


def test_the_text_of_a_small_scaffold() -> None:
    tensors = {f"enc.layers.{i}.fc.weight": [64, 16] for i in range(3)}
    text = begun(header_of({**tensors, "out.weight": [16, 64]}), schema="s.json").text
    head, _, rest = text.partition("format: 1\n")
    assert head.startswith("# yaml-language-server: $schema=s.json\n# Begun from m.safetensors: 4")
    assert (
        rest
        == """\
model: m
title: "?"
origin: m.safetensors
dtypes: [F32]

dims:
  layers: 3
  d16: 16
  d64: 64    # 4 * d16
index:
  i: layers

"""
        + scaffold.TAIL
        + """
rules:
  - from: enc.layers.{i}.fc.weight
    to:
      "?": [d64, d16]
  - from: out.weight
    to:
      "?": [d16, d64]
"""
    )


def rules_of(text: str) -> list[str]:
    return [line.strip(" -") for line in text.splitlines() if line.startswith("  - from")]


@pytest.mark.parametrize(
    ("names", "rules", "index"),
    [
        (["h.0.w", "h.1.w", "h.2.w"], ["from: h.{i}.w"], "i: h_count"),
        (["h.3.w", "h.4.w"], ["from: h.{i}.w"], "i: 3..4"),
        (["h.0.w", "h.2.w"], ["from: h.0.w", "from: h.2.w"], None),
        (["h.1.w", "h.3.w", "h.5.w"], ["from: h.{1 + 2 * i}.w"], "index: {i: 3}"),
        (["h.0.w", "h.3.w", "h.6.w"], ["from: h.{3 * i}.w"], "index: {i: 3}"),
        (["norm1.w", "norm2.w"], ["from: norm1.w", "from: norm2.w"], None),
        ([f"w_l{i}" for i in range(5)], ["from: w_l{i}"], "i: w_l"),
        (["0.w", "1.w"], ['from: "{i}.w"'], "i: items"),
        (["h.0", "h.1"], ["from: h.{i}"], "i: h_count"),
        (["h.00.w", "h.01.w"], ["from: h.00.w", "from: h.01.w"], None),
        (["on", "yes.w"], ['from: "on"', "from: yes.w"], None),
        (["é.w"], ['from: "é.w"'], None),
    ],
    ids=str,
)
def test_numbers_are_indices_where_others_stand_in_their_place(
    names: list[str], rules: list[str], index: str | None
) -> None:
    text = begun(header_of({name: [4] for name in names})).text
    assert rules_of(text) == rules
    assert ("index" in text) is (index is not None)
    assert index is None or index in text


def test_layers_of_another_shape_have_rules_of_their_own() -> None:
    shapes = {f"h.{i}.w": [32 if i == 2 else 16] for i in range(6)}
    text = begun(header_of(shapes)).text
    assert rules_of(text) == ["from: h.{i}.w", "from: h.{i}.w", "from: h.2.w"]
    assert "\nindex:" not in text
    assert "index: {i: 0..1}" in text
    assert "index: {i: 3..5}" in text


def test_lists_of_the_same_word_are_told_apart() -> None:
    shapes = {f"{side}.layers.{i}.w": [4] for side in ("enc", "dec") for i in range(2)}
    assert {"enc_layers", "dec_layers"} <= begun(header_of(shapes)).dims.keys()


def test_a_dim_is_not_called_by_a_word_of_expressions() -> None:
    made = begun(header_of({f"{word}.{i}": [4] for word in ("in", "len") for i in range(2)}))
    assert not {"in", "len"} & made.dims.keys()
    parse.parse(decided(made.text).encode(), "m.yaml")


def test_the_dtypes_of_the_file_are_accepted_and_others_are_stated_by_their_rule() -> None:
    header = {
        **header_of({"a": [2], "b": [3]}, "BF16"),
        **header_of({"c": [4]}, "F32"),
        **header_of({"steps": []}, "I64"),
    }
    text = begun(header).text
    assert "dtypes: [BF16, F32]\n" in text
    assert "  - from: steps\n    # no floating numbers" in text
    assert text.count("dtypes: [I64]") == 1


def remarks(text: str) -> str:
    return " ".join(
        line.removeprefix("    # ") for line in text.splitlines() if line.startswith("    # ")
    )


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"c.weight_g": [8, 1, 1], "c.weight_v": [8, 4, 3]}, "fold_weight_norm: {dim: 0}"),
        ({"c.weight_g": [1, 8, 1], "c.weight_v": [4, 8, 3]}, "fold_weight_norm: {dim: 1}"),
        ({"c.weight_g": [1, 1, 3], "c.weight_v": [4, 8, 3]}, "fold_weight_norm: {dim: 2}"),
        ({"c.weight_g": [1, 1], "c.weight_v": [1, 1]}, "do not tell"),
        (
            {"p.weight.original0": [8, 1], "p.weight.original1": [8, 4]},
            "with original1 a weight norm",
        ),
        ({"n.gamma": [8], "n.beta": [8]}, "beta: of a norm, what most networks call bias"),
        ({"a.qkv.weight": [48, 16]}, "no shape tells"),
        ({"a.fused.weight": [16, 48]}, "three times as many columns"),
        ({"a.qkv.weight": [48, 16], "a.qkv.bias": [48]}, "the same steps"),
        ({"a.qkv.weight": [32, 16]}, "by its name"),
        ({"position_ids": [1, 9]}, "expect: arange"),
        ({"m.gate_up_proj.weight": [32, 16]}, "chunk: {dim: 0, chunks: 2}"),
        ({"q.weight": [64, 96], "q.weight_scale_inv": [2, 6]}, "with weight_scale_inv [2, 6]"),
        ({"q.weight": [64, 96], "q.weight_scale": [64, 1]}, "as the second source"),
        ({"n.running_mean": [4], "n.running_var": [4]}, "fold_batch_norm"),
    ],
    ids=str,
)
def test_what_belongs_together_is_proposed(shapes: dict[str, list[int]], said: str) -> None:
    text = begun(header_of(shapes)).text
    assert said in remarks(text)
    assert "steps:" not in text


@pytest.mark.parametrize(
    "shapes",
    [
        {"snake.beta": [8]},
        {"w.weight_scale": [2, 6]},
        {"m.gate.weight": [8, 16]},
        {"c.weight_g": [8, 1]},
        {"fc.weight": [64, 16]},
        {"a.bias": [48]},
    ],
    ids=str,
)
def test_what_stands_alone_is_not_remarked_upon(shapes: dict[str, list[int]]) -> None:
    assert remarks(begun(header_of(shapes)).text) == ""


def test_a_causal_mask_may_be_dropped_and_proven() -> None:
    text = begun(header_of({"h.bias": [1, 1, 9, 9]}, "BOOL")).text
    assert "lower_triangular" in remarks(text)


TARGET: dict[str, Shape] = {
    "same": (5,),
    **{f"blocks.{i}.up": (64, 16) for i in range(2)},
    **{f"blocks.{i}.q": (16, 16) for i in range(2)},
    **{f"blocks.{i}.k": (16, 16) for i in range(2)},
    "turned": (7, 9),
    "nothing.like.it": (3, 3, 3),
}


def test_a_target_of_equal_name_or_shape_is_proposed_and_never_filled_in() -> None:
    layers = {f"h.{i}.{leaf}": s for i in range(2) for leaf, s in {"fc": [64, 16]}.items()}
    more = {f"h.{i}.wq": [16, 16] for i in range(2)}
    header = header_of({"same": [5], **layers, **more, "old": [9, 7], "alone": [2, 3]})
    made = begun(header, target=TARGET)
    plain = begun(header)
    said = remarks(made.text)
    assert "the target has this name, with this shape" in said
    assert "of this shape the target has only blocks.{0..1}.up" in said
    assert "of this shape the target has blocks.{0..1}.q, blocks.{0..1}.k" in said
    assert "transposed, of this shape the target has only turned" in said
    assert made.text.endswith(
        "# Of the target, of no shape that the source has:\n#   nothing.like.it [3, 3, 3]\n"
    )
    without = [line for line in made.text.splitlines() if not line.lstrip().startswith("#")]
    assert without == [
        line for line in plain.text.splitlines() if not line.lstrip().startswith("#")
    ]


def test_of_several_with_the_shape_those_with_the_same_last_word_are_proposed() -> None:
    target = {"norm.weight": (8,), "norm.bias": (8,)}
    said = remarks(begun(header_of({"ln.bias": [8], "ln.weight": [8]}), target=target).text)
    assert "of this shape, bias too, the target has only norm.bias" in said
    assert "of this shape, weight too, the target has only norm.weight" in said


@pytest.mark.parametrize(
    ("name", "dtype", "said"),
    [
        ("w.weight", "I8", "dequantize"),
        ("w.qweight", "I32", "dequantize"),
        ("w.mask", "BOOL", "no floating numbers: drop it"),
        ("freqs_cis", "C64", ""),
    ],
)
def test_what_is_no_floating_number_is_not_always_to_be_dropped(
    name: str, dtype: str, said: str
) -> None:
    remark = remarks(begun(header_of({name: [8, 8, 2]}, dtype)).text)
    assert said in remark
    assert bool(remark) == bool(said)
    assert ("drop" in remark) == ("drop" in said)


def test_the_integers_beside_a_scale_are_not_asked_about_twice() -> None:
    scale = header_of({"w.weight_scale": [8, 1]})
    quantised = {**header_of({"w.weight": [8, 4]}, "I8"), **scale}
    assert remarks(begun(quantised).text).count("dequantize") == 1


def test_experts_may_be_stacked_in_the_target() -> None:
    source = {f"h.{i}.experts.{e}.up": [16, 8] for i in range(2) for e in range(4)}
    target = {f"layers.{i}.experts_up": (4, 16, 8) for i in range(2)} | {"lone": (2, 16, 8)}
    made = begun(header_of(source), target=target)
    said = "stacked over {0..3} with gather, of this shape the target has layers.{0..1}.experts_up"
    assert said in remarks(made.text)
    assert made.text.endswith("#   lone [2, 16, 8]\n")


def test_running_statistics_are_like_nothing_but_themselves() -> None:
    header = header_of({"bn.running_var": [8], "bn.running_mean": [8]})
    lone = remarks(begun(header, target={"conv.bias": (8,)}).text)
    assert "conv.bias" not in lone
    kept = remarks(begun(header, target={"norm.running_var": (8,)}).text)
    assert "of this shape, running_var too, the target has only norm.running_var" in kept


def test_the_parts_of_ranks_are_said_to_need_merging() -> None:
    header = header_of({f"rank.{r}.w": [4, 8] for r in range(2)})
    assert "merge_shards" in scaffold.scaffold(header, model="m", origin="m.ranks.json").text
    assert "merge_shards" not in scaffold.scaffold(header, model="m", origin="m.safetensors").text


def test_a_shape_of_several_sources_is_not_said_to_have_only_one_target() -> None:
    header = header_of({"a": [5, 6], "b": [5, 6]})
    assert "only" not in remarks(begun(header, target={"x": (5, 6)}).text)


def test_a_scope_takes_a_part_and_leaves_the_rest_to_other_models() -> None:
    header = header_of({"net.a": [3], "net.b": [4], "other": [5]})
    made = begun(header, scope="net.")
    assert made.tensors == 2
    assert "scope: net.\n" in made.text
    rule_file = parse.parse(decided(made.text).encode(), "m.yaml")
    plan = bind(rule_file, header, resolve(rule_file))
    assert (plan.used, plan.out_of_scope) == (2, 1)


def test_a_scope_of_nothing_is_refused() -> None:
    with pytest.raises(SourceError, match="nothing to begin a rule file from"):
        begun(header_of({"a": [3]}), scope="net.")
    with pytest.raises(SourceError, match="nothing to begin a rule file from"):
        begun({})


@pytest.mark.parametrize("name", ["a b", "a{b}", "a*", "net."])
def test_a_name_that_no_rule_can_write_is_refused(name: str) -> None:
    with pytest.raises(PlanError) as caught:
        begun(header_of({name: [3], "net.a": [3]}), scope="net." if name == "net." else "")
    (finding,) = caught.value.findings
    assert (finding.code, finding.what) == ("name", "a rule cannot write this name")


def test_names_that_do_not_fold_are_refused_before_a_file_of_their_size_is_written() -> None:
    words = (f"{'x' * 40}{number:05}" for number in range(5000))
    with pytest.raises(PlanError) as caught:
        begun(header_of({word: [3] for word in words}))
    assert caught.value.findings[0].code == "scaffold-size"


def test_a_hundred_thousand_tensors_fold_into_a_short_file() -> None:
    leaves = {"w1": [64, 32], "w2": [32, 64], "w3": [64, 32]}
    header = header_of(
        {
            f"model.layers.{i}.mlp.experts.{j}.{leaf}.weight": shape
            for i in range(64)
            for j in range(522)
            for leaf, shape in leaves.items()
        }
    )
    made = begun(header)
    assert (len(header), made.patterns) == (100_224, 3)
    assert len(made.text.splitlines()) < 50


def test_the_same_header_gives_the_same_text() -> None:
    header = api.inspect(HEADERS / "s2mel.json").header
    assert begun(header).text == begun(dict(header)).text


def test_every_dtype_can_be_stated() -> None:
    for dtype in DTYPES:
        made = begun(header_of({"a": [8, 8]}, dtype))
        parse.parse(decided(made.text).encode(), "m.yaml")


def test_the_state_dict_of_a_module_is_a_target(tmp_path: Path) -> None:
    class Shaped:
        shape = (3,)

    source = tmp_path / "My Model.json"
    source.write_text(json.dumps({"a": {"dtype": "F32", "shape": [3]}}))
    made = api.scaffold(source, target={"a": Shaped()})
    assert "the target has this name" in made.text
    assert made.model == "my-model"
    tensors = api.scaffold(source, target=torch.nn.Linear(1, 3).state_dict())
    assert "of this shape the target has only bias" in tensors.text
