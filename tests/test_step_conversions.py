"""Every later step and short way, through whole conversions of a rule file of a few lines."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval
from toy import convert, refusal

from converter import api, api_reverse, resources
from converter.errors import ExecutionError, ValueRefusedError
from converter.steps import STEPS, SUGAR

Tensors = Mapping[str, Tensor]


def counting(*shape: int) -> Tensor:
    return torch.arange(1.0, torch.Size(shape).numel() + 1).reshape(shape)


@dataclass(frozen=True)
class Case:
    """Rules from ``dtypes`` on, a source, and what becomes of it, by one name or by several.

    ``steps`` are those that the manifest is to name: the steps of a short way, and not itself.
    """

    rules: str
    source: Callable[[], Tensors]
    expected: Callable[[Tensors], Tensors]
    steps: tuple[str, ...]


def heads(tensor: Tensor, heads: int) -> Tensor:
    return tensor.reshape(heads, -1, *tensor.shape[1:])


def batch_norm_source() -> Tensors:
    torch.manual_seed(0)
    return {
        "conv": torch.randn(6, 4, 3),
        "bias": torch.randn(6),
        "gamma": torch.rand(6) + 0.5,
        "beta": torch.randn(6),
        "mean": torch.randn(6),
        "var": torch.rand(6) + 0.1,
    }


def fused_by_torch(source: Tensors) -> Tensors:
    conv, norm = torch.nn.Conv1d(4, 6, 3), torch.nn.BatchNorm1d(6, eps=1e-3)
    conv.load_state_dict({"weight": source["conv"].double(), "bias": source["bias"].double()})
    norm.load_state_dict(
        {
            "weight": source["gamma"],
            "bias": source["beta"],
            "running_mean": source["mean"],
            "running_var": source["var"],
            "num_batches_tracked": torch.tensor(0),
        }
    )
    fused = fuse_conv_bn_eval(conv.double().eval(), norm.double().eval())
    assert fused.bias is not None
    return {"w": fused.weight.detach().float(), "b": fused.bias.detach().float()}


def quantised_source() -> Tensors:
    torch.manual_seed(0)
    return {
        "w": torch.randn(5, 6).to(torch.float8_e4m3fn),
        "w_scale_inv": torch.rand(3, 2) + 0.5,
    }


def dequantised(source: Tensors) -> Tensors:
    scale = source["w_scale_inv"].repeat_interleave(2, 0)[:5].repeat_interleave(4, 1)[:, :6]
    return {"w": (source["w"].double() * scale.double()).bfloat16()}


def ranks(source: Tensors) -> Tensors:
    return {"w": torch.cat([source["rank.0.w"], source["rank.1.w"]], 1), "n": source["rank.0.n"]}


SPLIT = """
    dtypes: [F32]
    dims: {{hidden: 5}}
    rules:
      - from: wqkv
        steps:
          - split_qkv: {{{call}}}
        to: {{q: [12, hidden], k: [{kv}, hidden], v: [{kv}, hidden]}}
      - from: bqkv
        steps:
          - split_qkv: {{{call}}}
        to: {{bq: [12], bk: [{kv}], bv: [{kv}]}}
    """
FUSE = """
    dtypes: [F32]
    rules:
      - from: [q, k, v]
        steps:
          - fuse_qkv: {{{call}}}
        to: {{wqkv: [{rows}, 5]}}
    """
GROUPED = "layout: grouped, heads: 6, kv_heads: 2, head_dim: 2"
PER_HEAD = "layout: per_head, heads: 6, head_dim: 2"


def one(step: str, shape: str, before: str = "w") -> str:
    return f"""
    dtypes: [F32]
    dims: {{n: 2}}
    rules:
      - from: {before}
        steps:
          - {step}
        to: {{w: {shape}}}
    """


def grouped(source: Tensors) -> Tensors:
    out: dict[str, Tensor] = {}
    for name, prefix in (("wqkv", ""), ("bqkv", "b")):
        groups = heads(source[name], 2)
        parts = zip("qkv", torch.split(groups, [6, 2, 2], 1), strict=True)
        out.update({prefix + letter: part.flatten(0, 1) for letter, part in parts})
    return out


def per_head(source: Tensors) -> Tensors:
    out: dict[str, Tensor] = {}
    for name, prefix in (("wqkv", ""), ("bqkv", "b")):
        parts = zip("qkv", heads(source[name], 6).chunk(3, 1), strict=True)
        out.update({prefix + letter: part.flatten(0, 1) for letter, part in parts})
    return out


def half_split(weight: Tensor, head: int, turned: int) -> Tensor:
    rows = heads(weight, head)
    moved = [rows[:, 0:turned:2], rows[:, 1:turned:2], rows[:, turned:]]
    return torch.cat(moved, 1).flatten(0, 1)


CASES: Mapping[str, Case] = {
    "rearrange": Case(
        one('rearrange: {pattern: "(a b) c -> b (c a)", sizes: {a: n + 1}}', "[2, 9]"),
        lambda: {"w": counting(6, 3)},
        lambda source: {"w": source["w"].reshape(3, 2, 3).permute(1, 2, 0).reshape(2, 9)},
        ("rearrange",),
    ),
    "pad": Case(
        one("pad: {dim: 0, before: 1, after: n, value: -1.5}", "[6, 4]"),
        lambda: {"w": counting(3, 4)},
        lambda source: {"w": torch.nn.functional.pad(source["w"], (0, 0, 1, 2), value=-1.5)},
        ("pad",),
    ),
    "flip": Case(
        one("flip: {dim: 1}", "[3, 4]"),
        lambda: {"w": counting(3, 4)},
        lambda source: {"w": source["w"].flip(1)},
        ("flip",),
    ),
    "interleave": Case(
        one("interleave: {dim: 0, groups: n, size: 2}", "[8, 3]"),
        lambda: {"w": counting(8, 3)},
        lambda source: {"w": source["w"].reshape(2, 2, 2, 3).swapaxes(0, 1).reshape(8, 3)},
        ("interleave",),
    ),
    "deinterleave": Case(
        one("deinterleave: {dim: 0, groups: 3}", "[6, 3]"),
        lambda: {"w": counting(6, 3)},
        lambda source: {"w": source["w"].reshape(2, 3, 3).swapaxes(0, 1).reshape(6, 3)},
        ("deinterleave",),
    ),
    "replicate": Case(
        """
        dtypes: [F32]
        rules:
          - from: w
            steps:
              - replicate: {copies: 2}
            to: {a: [3], b: [3]}
        """,
        lambda: {"w": counting(3)},
        lambda source: {"a": source["w"], "b": source["w"]},
        ("replicate",),
    ),
    "deduplicate": Case(
        one("deduplicate", "[3]", "[a, b]"),
        lambda: {"a": counting(3), "b": counting(3)},
        lambda source: {"w": source["a"]},
        ("deduplicate",),
    ),
    "scale": Case(
        one("scale: {by: 0.1}", "[3, 4]"),
        lambda: {"w": counting(3, 4)},
        lambda source: {"w": (source["w"].double() * 0.1).float()},
        ("scale",),
    ),
    "add": Case(
        """
        dtypes: [F32]
        rules:
          - from: [b_ih, b_hh]
            steps: [add]
            to: {b: [4]}
          - from: norm
            steps:
              - add: {value: 1}
            to: {norm: [4]}
        """,
        lambda: {"b_ih": counting(4) / 3, "b_hh": counting(4) / 7, "norm": counting(4) / 9},
        lambda source: {
            "b": (source["b_ih"].double() + source["b_hh"].double()).float(),
            "norm": (source["norm"].double() + 1).float(),
        },
        ("add",),
    ),
    "fold_batch_norm": Case(
        """
        dtypes: [F32]
        rules:
          - from: [conv, bias, gamma, beta, mean, var]
            steps:
              - fold_batch_norm: {dim: 0, eps: 1e-3}
            to: {w: [6, 4, 3], b: [6]}
        """,
        batch_norm_source,
        fused_by_torch,
        ("fold_batch_norm",),
    ),
    "dequantize": Case(
        """
        dtypes: [F8_E4M3, F32]
        rules:
          - from: [w, w_scale_inv]
            steps:
              - dequantize: {block: [2, 4], dtype: BF16}
            to: {w: [5, 6]}
        """,
        quantised_source,
        dequantised,
        ("dequantize",),
    ),
    "split_qkv": Case(
        SPLIT.format(call=GROUPED, kv=4),
        lambda: {"wqkv": counting(20, 5), "bqkv": counting(20)},
        grouped,
        ("rearrange", "split"),
    ),
    "split_qkv per head": Case(
        SPLIT.format(call=PER_HEAD, kv=12),
        lambda: {"wqkv": counting(36, 5), "bqkv": counting(36)},
        per_head,
        ("rearrange", "split"),
    ),
    "fuse_qkv": Case(
        FUSE.format(call=GROUPED, rows=20),
        lambda: {"q": counting(12, 5), "k": counting(4, 5) + 100, "v": counting(4, 5) + 200},
        lambda source: {
            "wqkv": torch.cat([heads(source[name], 2) for name in "qkv"], 1).flatten(0, 1)
        },
        ("rearrange", "concat"),
    ),
    "permute_rope": Case(
        one(
            "permute_rope: {from: interleaved, to: half_split, heads: 3, head_dim: 6,"
            " rotary_dim: 4}",
            "[18, 2]",
        ),
        lambda: {"w": counting(18, 2)},
        lambda source: {"w": half_split(source["w"], 3, 4)},
        ("rearrange", "deinterleave"),
    ),
    "merge_shards": Case(
        """
        dtypes: [F32]
        dims: {ranks: 2}
        index: {r: ranks}
        rules:
          - from: "rank.{r}.w"
            gather: r
            steps:
              - merge_shards: {dim: 1}
            to: {w: [3, 4]}
          - from: "rank.{r}.n"
            gather: r
            steps:
              - merge_shards: {replicated: true}
            to: {n: [5]}
        """,
        lambda: {
            "rank.0.w": counting(3, 2),
            "rank.1.w": counting(3, 2) + 50,
            "rank.0.n": counting(5),
            "rank.1.n": counting(5),
        },
        ranks,
        ("concat", "deduplicate"),
    ),
}

EARLIER = {
    *("split", "chunk", "concat", "stack", "unstack", "transpose", "permute", "reshape"),
    *("squeeze", "unsqueeze", "slice", "reorder_chunks", "fold_weight_norm", "cast", "constant"),
}


def test_every_later_step_and_short_way_is_converted_here() -> None:
    assert {name.split()[0] for name in CASES} == {*STEPS, *SUGAR} - EARLIER


@pytest.mark.parametrize("name", CASES)
def test_a_conversion_makes_what_the_step_says_and_no_worker_changes_a_byte(
    name: str, tmp_path: Path
) -> None:
    case = CASES[name]
    rules, source = textwrap.dedent(case.rules), case.source()
    folders = [tmp_path / str(jobs) for jobs in (1, 3)]
    for folder, jobs in zip(folders, (1, 3), strict=True):
        folder.mkdir()
        convert(folder, source, rules, jobs=jobs)
    made = load_file(folders[0] / "out" / "model.safetensors")
    expected = case.expected(source)
    assert made.keys() == expected.keys()
    for target, tensor in expected.items():
        assert made[target].dtype == tensor.dtype
        assert torch.equal(made[target], tensor), target
    texts = [
        (folder / "out" / file).read_bytes()
        for folder in folders
        for file in ("model.safetensors", "manifest.json")
    ]
    assert texts[:2] == texts[2:]
    manifest = json.loads(texts[1])
    jsonschema.validate(manifest, resources.schema("manifest"))
    named = {next(iter(step)) for item in manifest["tensors"].values() for step in item["steps"]}
    assert named == {*case.steps}


@pytest.mark.parametrize("name", CASES)
def test_what_was_made_is_derived_again_from_its_manifest(name: str, tmp_path: Path) -> None:
    convert(tmp_path, CASES[name].source(), textwrap.dedent(CASES[name].rules))
    verification = api.verify(tmp_path / "out")
    assert verification.holds
    again = api.verify_source(
        verification, tmp_path / "toy.safetensors", rules=tmp_path / "toy.yaml"
    )
    assert again.derived
    assert not again.findings


@pytest.mark.parametrize("name", ["interleave", "split_qkv", "add", "permute_rope"])
def test_a_cast_of_the_command_line_follows_the_steps(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    source = case.source()
    convert(tmp_path, source, textwrap.dedent(case.rules), dtype="bf16")
    made = load_file(tmp_path / "out" / "model.safetensors")
    for target, tensor in case.expected(source).items():
        assert torch.equal(made[target], tensor.bfloat16()), target


def test_replicas_that_differ_are_refused_with_the_first_rank_that_does(tmp_path: Path) -> None:
    case = CASES["merge_shards"]
    source = dict(case.source())
    source["rank.1.n"] = source["rank.1.n"].clone()
    source["rank.1.n"][3] = 7.0
    error = refusal(tmp_path, source, textwrap.dedent(case.rules))
    assert isinstance(error, ValueRefusedError)
    (finding,) = error.findings
    assert finding.what == "deduplicate: tensor 1 differs from tensor 0"
    assert finding.tensor == "rank.0.n, rank.1.n"
    assert finding.got == "another byte at 14; 1 of 20 differ"


def test_a_large_tensor_is_made_a_few_rows_at_a_time_as_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = textwrap.dedent(CASES["add"].rules)
    source = {name: counting(4) / 3 for name in ("b_ih", "b_hh", "norm")}
    convert(tmp_path, source, rules)
    (tmp_path / "slabs").mkdir()
    monkeypatch.setattr("converter.lanes.SLAB_BYTES", 8)
    convert(tmp_path / "slabs", source, rules)
    whole, slabs = (path / "out" / "model.safetensors" for path in (tmp_path, tmp_path / "slabs"))
    assert whole.read_bytes() == slabs.read_bytes()


def test_replicas_are_compared_whole_however_few_rows_are_looked_at_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"a": counting(6), "b": counting(6)}
    source["b"][4] = 9.0
    monkeypatch.setattr("converter.lanes.SLAB_BYTES", 8)
    error = refusal(tmp_path, source, textwrap.dedent(one("deduplicate", "[6]", "[a, b]")))
    assert error.findings[0].got == "another byte at 18; 2 of 24 differ"


LOSSY = {"scale", "add", "fold_batch_norm", "dequantize"}


@pytest.mark.parametrize("name", sorted(CASES.keys() - LOSSY))
def test_the_original_comes_back_bit_for_bit_where_the_steps_are_exact(
    name: str, tmp_path: Path
) -> None:
    source = CASES[name].source()
    convert(tmp_path, source, textwrap.dedent(CASES[name].rules))
    api_reverse.reverse(
        tmp_path / "out", tmp_path / "back.safetensors", rules=tmp_path / "toy.yaml"
    )
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == source.keys()
    for original, tensor in source.items():
        assert torch.equal(back[original], tensor), original


@pytest.mark.parametrize("name", sorted(LOSSY))
def test_an_original_that_is_lost_is_said_to_be(name: str, tmp_path: Path) -> None:
    convert(tmp_path, CASES[name].source(), textwrap.dedent(CASES[name].rules))
    with pytest.raises(ExecutionError, match="would not come back as it was"):
        api_reverse.reverse(
            tmp_path / "out", tmp_path / "back.safetensors", rules=tmp_path / "toy.yaml"
        )


def test_a_scale_by_a_power_of_two_comes_back(tmp_path: Path) -> None:
    source = {"w": torch.randn(3, 4)}
    convert(tmp_path, source, textwrap.dedent(one("scale: {by: 8}", "[3, 4]")))
    api_reverse.reverse(
        tmp_path / "out", tmp_path / "back.safetensors", rules=tmp_path / "toy.yaml"
    )
    assert torch.equal(load_file(tmp_path / "back.safetensors")["w"], source["w"])
