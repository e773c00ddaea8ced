from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conversion_fixture import (
    assert_same_tensors,
    convert_golden,
    described,
    failing,
    untrained,
)
from golden_soprano_lm import compare_soprano_lm, soprano_lm_weights
from mutants import Mutant, ignored, replaced, swapped, with_epsilon
from reference_weights import HEADERS, golden_checkpoint, golden_tensors
from torch import Tensor, nn

from converter import api
from converter.errors import PlanError, UsageError
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import soprano_lm
from converter.runtime.networks.soprano_lm import SopranoLM

RECORDED = golden_tensors("soprano-lm")
IDS = RECORDED["input.input_ids"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_golden(tmp_path_factory.mktemp("lm") / "out", "soprano-lm", "soprano-lm")


def load(directory: Path, device: str = "cpu") -> SopranoLM:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, SopranoLM)
    return network


def test_every_recorded_output_and_intermediate_is_met(directory: Path) -> None:
    differences = compare_soprano_lm(load(directory), RECORDED)
    assert len(differences) == 4
    assert not failing(differences)


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda(directory: Path) -> None:
    assert not failing(compare_soprano_lm(load(directory, "cuda"), RECORDED, tolerance=1e-4))


def test_every_canonical_tensor_is_the_one_that_the_facts_name(directory: Path) -> None:
    expected = soprano_lm_weights(golden_checkpoint("soprano-lm"))
    assert len(expected) == 2 * 11 + 3
    assert_same_tensors(load_tensors(directory), expected)


def neighbours_turned(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def rotate(x: Tensor, rope: Tensor) -> Tensor:
        (even, odd), (cos, sin) = (x[..., 0::2], x[..., 1::2]), rope
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)

    monkeypatch.setattr(soprano_lm, "rotate", rotate)


def not_turned(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soprano_lm, "rotate", lambda x, rope: x)


def another_base(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    assert isinstance(network, SopranoLM)
    network.config = replace(network.config, rope_base=5000.0)


def skipped(norm: str) -> Mutant:
    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        network.set_submodule(norm, nn.Identity())

    return mutate


def scaled_by_hidden(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale scores by the width that a head would have if all heads together were D wide."""
    attend = partial(F.scaled_dot_product_attention, scale=(48 / 4) ** -0.5)
    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)


ATTENTION = "layers.0.attention"
MUTANTS: dict[str, Mutant] = {
    "key and value swapped": swapped(f"{ATTENTION}.k_proj", f"{ATTENTION}.v_proj"),
    "query and key norms swapped": swapped(f"{ATTENTION}.q_norm", f"{ATTENTION}.k_norm"),
    "gate and up swapped": swapped("layers.0.ffn.gate_proj", "layers.0.ffn.up_proj"),
    "norms of a layer swapped": swapped("layers.0.attention_norm", "layers.0.ffn_norm"),
    "layers swapped": swapped("layers.0.ffn", "layers.1.ffn"),
    "embedding and head swapped": swapped("token_embedding", "lm_head"),
    **{
        f"{norm} without weight": ignored(norm)
        for norm in (
            "layers.0.attention_norm",
            f"{ATTENTION}.q_norm",
            f"{ATTENTION}.k_norm",
            "layers.0.ffn_norm",
            "final_norm",
        )
    },
    **{
        f"{norm} skipped": skipped(norm)
        for norm in (f"{ATTENTION}.q_norm", f"{ATTENTION}.k_norm", "final_norm")
    },
    "neighbours turned": neighbours_turned,
    "not turned": not_turned,
    "rope base 5000": another_base,
    "eps 1e-2": with_epsilon(1e-2),
    "gelu for silu": replaced("silu", F.gelu),
    "scaled by D/H": scaled_by_hidden,
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_that_fits_every_shape_is_seen(
    mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(compare_soprano_lm(network, RECORDED))


def test_no_matrix_of_the_golden_set_is_square_so_none_can_be_transposed_unseen() -> None:
    for tensor in golden_checkpoint("soprano-lm").values():
        assert tensor.ndim == 1 or tensor.shape[0] != tensor.shape[1]


def test_consecutive_heads_share_a_key_head() -> None:
    # The golden set has one key head, as the published model has, and so cannot show this.
    dims = {"layers": 1, "hidden": 16, "heads": 4, "kv_heads": 2, "head_dim": 6, "vocab": 96}
    shared = untrained("soprano-lm", dims, torch.float32)
    single = untrained("soprano-lm", dims | {"kv_heads": 4}, torch.float32)

    def logits_of_copies(order: list[int]) -> Tensor:
        weights = shared.state_dict()
        for word in ("k", "v"):
            name = f"layers.0.attention.{word}_proj.weight"
            weights[name] = weights[name].unflatten(0, (2, 6))[order].flatten(0, 1)
        single.load_state_dict(weights)
        logits: Tensor = single(IDS).logits
        return logits

    expected = shared(IDS).logits
    torch.testing.assert_close(logits_of_copies([0, 0, 1, 1]), expected)
    assert (logits_of_copies([0, 1, 0, 1]) - expected).abs().max() > 0.1


def test_all_tensors_reach_an_output(directory: Path) -> None:
    network = load(directory)
    for name, tensor in network.state_dict().items():
        original = tensor.clone()
        tensor[::2].mul_(1.3)  # a factor for all would be lost in the norms of queries and keys
        assert failing(compare_soprano_lm(network, RECORDED)), name
        tensor.copy_(original)


def test_what_follows_does_not_reach_what_came_before(directory: Path) -> None:
    network = load(directory)
    torch.testing.assert_close(network(IDS[:, :7]).logits, network(IDS).logits[:, :7])


def test_bfloat16_weights_give_nearly_the_same(directory: Path) -> None:
    # The published weights are bfloat16; rope and the sums of the norms stay float32.
    logits = load(directory).bfloat16()(IDS).logits
    assert logits.dtype == torch.bfloat16
    expected = RECORDED["output.logits"]
    assert (logits - expected).abs().max() < 0.03 * expected.abs().max()


def test_the_published_size_has_the_tensors_of_its_header() -> None:
    plan = api.plan(HEADERS / "soprano-1.1-80m-lm.json", model="soprano-lm")
    record, shapes = described("soprano-lm")
    assert plan.used == len(plan.targets) == 190
    assert {spec.dtype for spec in plan.targets.values()} == {"BF16"}
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    with torch.device("meta"):
        network = soprano_lm.build(record)
    held = dict(network.named_parameters()) | dict(network.named_buffers())
    assert {name: tuple(tensor.shape) for name, tensor in held.items()} == shapes


SIZES = {
    "one layer of one head": {"layers": 1, "heads": 1, "kv_heads": 1},
    "no layer": {"layers": 0},
    "a key head for every head": {"heads": 3, "kv_heads": 3},
    "three heads to a key head": {"heads": 6, "kv_heads": 2},
    "heads of width two": {"hidden": 9, "head_dim": 2},
    "heads wider than the whole": {"head_dim": 32},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_sizes_run(size: str, dtype: torch.dtype) -> None:
    dims = {"layers": 3, "hidden": 16, "heads": 4, "kv_heads": 2, "head_dim": 4, "ffn": 10}
    dims |= {"vocab": 50} | SIZES[size]
    network = untrained("soprano-lm", dims, dtype)
    for tokens in (1, 14):
        output = network(IDS[:, :tokens] % 50)
        assert output.last_hidden_state.shape == (2, tokens, dims["hidden"])
        assert output.logits.shape == (2, tokens, 50)
        assert output.last_hidden_state.dtype == output.logits.dtype == dtype
        assert output.logits.isfinite().all()


@pytest.mark.parametrize(
    ("dims", "because", "what"),
    [
        ({"kv_heads": 3}, "serves equally many query heads", "4 heads do not share 3 key heads"),
        ({"kv_heads": 0}, "serves equally many query heads", "4 heads do not share 0 key heads"),
        ({"heads": 0}, "serves equally many query heads", "0 heads do not share 1 key heads"),
        ({"head_dim": 5}, "one half of each head with the other", "a head of width 5 has no two"),
        ({"head_dim": 0}, "one half of each head with the other", "a head of width 0 has no two"),
    ],
)
def test_impossible_dims_are_refused(dims: dict[str, int], because: str, what: str) -> None:
    with pytest.raises(PlanError, match=because):
        described("soprano-lm", dims=dims)
    record, _ = described("soprano-lm")
    with pytest.raises(UsageError, match=what):
        soprano_lm.build(replace(record, dims={**record.dims, **dims}))


def test_a_stop_token_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(PlanError, match="start and stop tokens are rows of the embedding"):
        described("soprano-lm", dims={"stop_token": 8192})


def test_inputs_of_another_shape_are_refused(directory: Path) -> None:
    with pytest.raises(UsageError, match="another shape"):
        load(directory)(IDS[0])
