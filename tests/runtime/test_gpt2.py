from __future__ import annotations

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
from golden_gpt2 import compare_gpt2, gpt2_weights
from mutants import Mutant, ignored, swapped, transposed, with_epsilon
from reference_weights import HEADERS, golden_checkpoint, golden_tensors
from torch import Tensor, nn

from converter import api
from converter.errors import PlanError, UsageError
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import gpt2
from converter.runtime.networks.gpt2 import GPT2

RECORDED = golden_tensors("gpt2")
IDS = RECORDED["input.input_ids"]
LAYOUTS = {"saved": "gpt2", "hub": "gpt2-hub-layout"}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("gpt2")
    return {
        layout: convert_golden(root / layout, golden, "gpt2", variant=[layout])
        for layout, golden in LAYOUTS.items()
    }


@pytest.fixture(scope="module")
def directory(directories: dict[str, Path]) -> Path:
    return directories["saved"]


def load(directory: Path, device: str = "cpu") -> GPT2:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, GPT2)
    return network


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_recorded_output_and_intermediate_is_met(
    layout: str, directories: dict[str, Path]
) -> None:
    differences = compare_gpt2(load(directories[layout]), golden_tensors(LAYOUTS[layout]))
    assert len(differences) == 4
    assert not failing(differences)


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda(directory: Path) -> None:
    assert not failing(compare_gpt2(load(directory, "cuda"), RECORDED, tolerance=1e-4))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_canonical_tensor_is_the_one_that_the_facts_name(
    layout: str, directories: dict[str, Path]
) -> None:
    expected = gpt2_weights(golden_checkpoint(LAYOUTS[layout]))
    assert len(expected) == 2 * 16 + 4 + 1
    assert_same_tensors(load_tensors(directories[layout]), expected)


def test_the_head_and_the_embedding_are_one_parameter(directory: Path) -> None:
    network = load(directory)
    assert network.lm_head.weight is network.token_embedding.weight


def per_head(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    """Read the columns of ``c_attn`` head by head: its q, its k, its v."""
    weights = [network.get_parameter(f"layers.0.attention.{word}_proj.weight") for word in "qkv"]
    heads = torch.cat(list(weights)).view(4, 3, 8, 32)
    for weight, rows in zip(weights, heads.unbind(1), strict=True):
        weight.data = rows.flatten(0, 1)


def exact_gelu(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    gelu = F.gelu
    monkeypatch.setattr(F, "gelu", lambda x, approximate: gelu(x))


def without_final_norm(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    network.set_submodule("final_norm", nn.Identity())


def not_causal(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, k, v, is_causal: attend(q, k, v)
    )


ATTENTION = "layers.0.attention"
MUTANTS: dict[str, Mutant] = {
    "query and key swapped": swapped(f"{ATTENTION}.q_proj", f"{ATTENTION}.k_proj"),
    "value and output swapped": swapped(f"{ATTENTION}.v_proj", f"{ATTENTION}.out_proj"),
    "query, key and value per head": per_head,
    "output not transposed": transposed(f"{ATTENTION}.out_proj.weight"),
    "query not transposed": transposed(f"{ATTENTION}.q_proj.weight"),
    "norms of a layer swapped": swapped("layers.0.attention_norm", "layers.0.ffn_norm"),
    "layers swapped": swapped("layers.0.ffn", "layers.1.ffn"),
    **{
        f"{norm} without weight": ignored(norm)
        for norm in ("layers.0.attention_norm", "layers.1.ffn_norm", "final_norm")
    },
    "final norm skipped": without_final_norm,
    "eps 1e-2": with_epsilon(1e-2),
    "exact gelu": exact_gelu,
    "not causal": not_causal,
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_that_fits_every_shape_is_seen(
    mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(compare_gpt2(network, RECORDED))


def test_all_tensors_but_the_key_biases_reach_an_output(directory: Path) -> None:
    # A bias on the keys adds the same to all scores of a query, which softmax takes away.
    network = load(directory)
    dead = set()
    for name, tensor in network.state_dict().items():
        original = tensor.clone()
        tensor.mul_(1.3)
        if not failing(compare_gpt2(network, RECORDED)):
            dead.add(name)
        tensor.copy_(original)
    assert dead == {f"layers.{i}.attention.k_proj.bias" for i in range(2)}


def test_what_follows_does_not_reach_what_came_before(directory: Path) -> None:
    network = load(directory)
    torch.testing.assert_close(network(IDS[:, :7]).logits, network(IDS).logits[:, :7])


def test_the_published_size_has_the_tensors_of_its_header() -> None:
    plan = api.plan(HEADERS / "gpt2.json", model="gpt2")
    record, shapes = described("gpt2")
    assert (plan.used, len(plan.targets)) == (148, 12 * 16 + 4)
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    with torch.device("meta"):
        network = gpt2.build(record)
    assert {name: tuple(held.shape) for name, held in network.named_parameters()} == shapes


SIZES = {
    "one layer of one head": {"layers": 1, "heads": 1},
    "no layer": {"layers": 0},
    "heads of odd width": {"layers": 3, "hidden": 21, "heads": 3, "ffn": 10},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_sizes_run(size: str, dtype: torch.dtype) -> None:
    dims = {"layers": 2, "hidden": 16, "heads": 2, "ffn": 24, "vocab": 50, "positions": 13}
    dims |= SIZES[size]
    network = untrained("gpt2", dims, dtype)
    for tokens in (1, 13):
        output = network(IDS[:, :tokens] % 50)
        assert output.last_hidden_state.shape == (2, tokens, dims["hidden"])
        assert output.logits.shape == (2, tokens, 50)
        assert output.last_hidden_state.dtype == output.logits.dtype == dtype
        assert output.logits.isfinite().all()


@pytest.mark.parametrize("heads", [0, 5])
def test_impossible_dims_are_refused(heads: int) -> None:
    with pytest.raises(PlanError, match="heads are equal slices of hidden"):
        described("gpt2", dims={"heads": heads})
    with pytest.raises(UsageError, match=f"hidden 768 does not make {heads} equal heads"):
        gpt2.Layer(hidden=768, heads=heads, ffn=8, norm_eps=1e-5)


@pytest.mark.parametrize(
    "ids", [IDS[0], IDS.repeat(1, 2)], ids=["no batch", "more tokens than positions"]
)
def test_inputs_of_another_shape_are_refused(ids: Tensor, directory: Path) -> None:
    with pytest.raises(UsageError, match="another shape"):
        load(directory)(ids)
