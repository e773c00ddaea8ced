"""What is pointed out about names, shapes and values is so, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from converter import api
from converter.describe_facts import Group, facts_of, facts_of_values
from converter.describe_values import TensorValues
from converter.manifest import Statistics
from converter.spec import TensorSpec

HEADERS = Path(__file__).parent / "headers"


def facts(
    shapes: Mapping[str, list[int]], dtype: str = "F32"
) -> dict[tuple[str, str], list[Group]]:
    header = {name: TensorSpec(dtype, tuple(shape)) for name, shape in shapes.items()}
    return {(fact.kind, fact.what): list(fact.groups) for fact in facts_of(header)}


@pytest.mark.parametrize(
    ("magnitude", "direction", "what"),
    [
        ([8, 1, 1], [8, 4, 3], "magnitude along dim 0 and direction"),
        ([1, 4, 1], [8, 4, 3], "magnitude along dim 1 and direction"),
        ([1, 1, 1], [8, 4, 3], "magnitude of the whole and direction"),
        ([], [8, 4, 3], "magnitude of the whole and direction"),
        ([8, 4, 1], [8, 4, 3], "magnitude along dim 0 and 1 and direction"),
    ],
)
@pytest.mark.parametrize(
    "names",
    [
        ("a.weight_g", "a.weight_v"),
        ("weight_g", "weight_v"),
        ("a.parametrizations.weight.original0", "a.parametrizations.weight.original1"),
    ],
)
def test_a_weight_norm_pair_is_told_with_what_its_magnitude_is_along(
    names: tuple[str, str], magnitude: list[int], direction: list[int], what: str
) -> None:
    found = facts(dict(zip(names, (magnitude, direction), strict=True)))
    assert found == {("weight-norm", what): [names]}


@pytest.mark.parametrize(
    "shapes",
    [
        {"a.weight_g": [8, 1], "b.weight_v": [8, 4]},
        {"a.weight_g": [7, 1], "a.weight_v": [8, 4]},
        {"a.weight_g": [8], "a.weight_v": [8, 4]},
        {"a.my_weight_g": [8, 1], "a.my_weight_v": [8, 4]},
        {"a.gamma": [8], "a.beta": [7]},
        {"a.gamma": [8], "b.beta": [8]},
        {"a.running_mean": [8], "a.running_var": [7]},
        {"a.weight": [8, 8], "a.bias": [8]},
        {"a.weight": [8, 4], "a.bias": [8]},
        {"a.content_in_proj.weight": [24, 16]},
        {"a.query.weight": [8, 8], "a.key_query_values": [9, 3, 3]},
        {"a.weight": [2, 8], "a.lora_A.weight": [4, 8], "a.lora_B.weight": [8, 5]},
    ],
    ids=str,
)
def test_what_is_no_fact_is_not_told(shapes: dict[str, list[int]]) -> None:
    assert facts(shapes) == {}


def test_gamma_and_beta_are_told_together() -> None:
    ((kind, _), groups), *rest = facts({"n.gamma": [8], "n.beta": [8]}).items()
    assert (kind, groups, rest) == ("gamma-beta", [("n.gamma", "n.beta")], [])


def test_a_batch_norm_is_told_with_all_its_tensors() -> None:
    whole = {f"n.{leaf}": [8] for leaf in ("weight", "bias", "running_mean", "running_var")}
    whole["n.num_batches_tracked"] = []
    bare = {"m.running_mean": [4], "m.running_var": [4]}
    assert facts(whole | bare) == {
        ("batch-norm", "running statistics, scale and shift"): [tuple(whole)],
        ("batch-norm", "running statistics, not affine"): [tuple(bare)],
    }


@pytest.mark.parametrize(
    ("name", "shape", "kind", "what"),
    [
        ("a.wqkv.weight", [24, 8], "fused-qkv", "3 × 8 rows of 8"),
        ("h.0.attn.c_attn.weight", [8, 24], "fused-qkv", "8 rows of 3 × 8"),
        ("a.self_attn.in_proj_weight", [24, 8], "fused-qkv", "3 × 8 rows of 8"),
        ("a.query_key_value.weight", [24, 8, 1], "fused-qkv", "3 × 8 rows of 8"),
        ("a.qkv_proj.weight", [12, 8], "fused-qkv", "named so; 12 rows of 8"),
        ("a.to_kv.weight", [16, 8], "fused-kv", "2 × 8 rows of 8"),
        ("mlp.gate_up_proj.weight", [32, 8], "fused-gate", "named so; 2 × 16 rows of 8"),
        ("a.w1.weight", [24, 8], "three-to-one", "3 × 8 rows of 8; the name says no more"),
    ],
)
def test_a_fusion_is_told_by_its_name_and_shape(
    name: str, shape: list[int], kind: str, what: str
) -> None:
    assert facts({name: shape}) == {(kind, what): [(name,)]}


def test_a_bias_as_long_as_a_row_shows_that_a_weight_is_in_by_out() -> None:
    found = facts({"c_fc.weight": [8, 32], "c_fc.bias": [32]})
    assert [(kind, groups) for (kind, _), groups in found.items()] == [
        ("input-major", [("c_fc.weight", "c_fc.bias")])
    ]


def test_pairs_of_low_rank_and_scales_are_told() -> None:
    assert facts({"q.lora_A.weight": [4, 8], "q.lora_B.weight": [16, 4]}) == {
        ("low-rank", "a pair of rank 4"): [("q.lora_A.weight", "q.lora_B.weight")]
    }
    scaled = {"w.weight": [300, 256], "w.weight_scale_inv": [3, 2]}
    ((kind, what),) = facts(scaled, "F8_E4M3")
    assert kind == "scaled"
    assert what.startswith(
        "F8_E4M3 beside its scale of shape [3, 2], for blocks of 128 × 128 or so"
    )


@pytest.mark.parametrize(
    ("weight", "scale", "blocks"),
    [
        ([176, 64], [6, 2], "32 × 32"),  # a ragged last block
        ([100, 64], [3, 1], "34 × 64"),  # three blocks of no power of two cover 100
        ([96, 1], [3, 1], "32 × 1"),  # no matrix three times as long as wide
    ],
)
def test_the_blocks_of_a_scale_are_what_covers_its_weight(
    weight: list[int], scale: list[int], blocks: str
) -> None:
    ((kind, what),) = facts({"w.weight": weight, "w.weight_scale_inv": scale}, "F8_E4M3")
    assert kind == "scaled"
    assert what.endswith(f"for blocks of {blocks} or so")


def test_the_quirks_of_real_checkpoints_are_seen() -> None:
    def told(name: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for fact in api.inspect(HEADERS / f"{name}.json").facts:
            counts[fact.kind] = counts.get(fact.kind, 0) + len(fact.groups)
        return counts

    assert told("s2mel") == {"weight-norm": 19, "fused-qkv": 13, "three-to-one": 26}
    assert told("gpt2") == {"fused-qkv": 12, "input-major": 36}
    assert told("bert-base-uncased") == {"gamma-beta": 26}
    assert told("campplus_cn_common") == {"batch-norm": 122}
    assert told("bigvgan_generator") == {"weight-norm": 116}


def test_every_tensor_of_a_fact_is_in_the_checkpoint() -> None:
    for path in HEADERS.glob("*.json"):
        description = api.inspect(path)
        named = {n for fact in description.facts for group in fact.groups for n in group}
        assert named <= description.header.keys(), path.name


# Of values


def values(digest: str, *, constant: bool = False, low: float = 0.0, bad: int = 0) -> TensorValues:
    stats = Statistics(low, 0.0, low, low, bad)
    return TensorValues(digest, constant, stats, 0, bad, bad)


def test_equal_bytes_are_told_of_equal_specs_alone() -> None:
    header = {
        "a": TensorSpec("F32", (2,)),
        "b": TensorSpec("F32", (2,)),
        "c": TensorSpec("F32", (2, 1)),
        "ones": TensorSpec("F32", (4,)),
        "more": TensorSpec("F32", (4,)),
        "scalar": TensorSpec("F32", ()),
        "other": TensorSpec("F32", ()),
    }
    read = dict.fromkeys("abc", values("x"))
    read |= dict.fromkeys(("ones", "more"), values("y", constant=True, low=1.0))
    read |= dict.fromkeys(("scalar", "other"), values("z", constant=True))
    told = {(fact.kind, fact.what): fact.groups for fact in facts_of_values(header, read)}
    assert told == {
        ("equal", "the same bytes"): (("a", "b"),),
        ("constant", "all 1"): (("ones",), ("more",)),
    }


def test_tensors_with_nan_or_infinity_are_told() -> None:
    header = {name: TensorSpec("F32", (2,)) for name in "ab"}
    (fact,) = facts_of_values(header, {"a": values("x", bad=1), "b": values("y")})
    assert (fact.kind, fact.groups) == ("not-finite", (("a",),))
