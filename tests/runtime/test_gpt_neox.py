from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conversion_fixture import (
    MODELS,
    assert_same_tensors,
    convert_golden,
    described,
    failing,
    untrained,
)
from golden_gpt_neox import compare_gpt_neox, gpt_neox_weights
from mutants import Mutant, ignored, patched, swapped, with_epsilon
from reference_weights import GOLDEN, HEADERS, golden_checkpoint, golden_tensors
from safetensors.torch import save_file
from small_gpt_neox import Size, original, published, record
from torch import Tensor, nn

from converter import api
from converter.dims import read_dims
from converter.errors import MismatchError, PlanError, UsageError
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import build_network, gpt_neox
from converter.runtime.networks.gpt_neox import GPTNeoX, GPTNeoXConfig

RECORDED = golden_tensors("gpt-neox")
IDS = RECORDED["input.input_ids"]
FORMS: dict[str, tuple[str, Sequence[str]]] = {
    "gpt-neox": ("golden-dims", ()),
    "gpt-neox-sequential": ("golden-sequential-dims", ("sequential", "gpt-neox-20b")),
}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("neox")
    return {
        golden: convert_golden(root / golden, golden, "gpt-neox", dims, variant=variant)
        for golden, (dims, variant) in FORMS.items()
    }


@pytest.fixture(scope="module")
def directory(directories: dict[str, Path]) -> Path:
    return directories["gpt-neox"]


def load(directory: Path, device: str = "cpu") -> GPTNeoX:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, GPTNeoX)
    return network


@pytest.mark.parametrize("golden", FORMS)
def test_every_recorded_output_and_intermediate_is_met(
    golden: str, directories: dict[str, Path]
) -> None:
    differences = compare_gpt_neox(load(directories[golden]), golden_tensors(golden))
    assert len(differences) == 2 * 5 + 2
    assert not failing(differences)


@pytest.mark.cuda
@pytest.mark.parametrize("golden", FORMS)
def test_every_recorded_output_is_met_on_cuda(golden: str, directories: dict[str, Path]) -> None:
    network = load(directories[golden], "cuda")
    assert not failing(compare_gpt_neox(network, golden_tensors(golden), tolerance=1e-4))


@pytest.mark.parametrize("golden", FORMS)
def test_every_canonical_tensor_is_the_one_that_the_facts_name(
    golden: str, directories: dict[str, Path]
) -> None:
    expected = gpt_neox_weights(golden_checkpoint(golden), heads=3)
    assert len(expected) == 2 * 16 + 4
    assert_same_tensors(load_tensors(directories[golden]), expected)


LIVE = {
    "a quarter turned, parallel": Size(seed=1),
    "a quarter turned, sequential": Size(seed=2, use_parallel_residual=False),
    "all turned, parallel": Size(seed=3, rotary_pct=1.0, num_attention_heads=4),
    "all turned, sequential, tanh": Size(
        seed=4, rotary_pct=1.0, use_parallel_residual=False, hidden_act="gelu_fast"
    ),
    "one head, three layers": Size(seed=5, num_attention_heads=1, num_hidden_layers=3),
}


@pytest.mark.parametrize("case", LIVE)
def test_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    size = LIVE[case]
    model = original(size)
    save_file(published(model), tmp_path / "checkpoint.safetensors")
    form = "parallel" if size.use_parallel_residual else "sequential"
    sizes = "pythia-70m" if size.hidden_act == "gelu" else "gpt-neox-20b"
    out = tmp_path / "out"
    api.convert(
        tmp_path / "checkpoint.safetensors",
        out,
        model="gpt-neox",
        variant=[sizes, form],
        dims={
            "layers": size.num_hidden_layers,
            "hidden": size.hidden_size,
            "heads": size.num_attention_heads,
            "ffn": size.intermediate_size,
            "vocab": size.vocab_size,
            "rotary_percent": round(100 * size.rotary_pct),
        },
    )
    differences = compare_gpt_neox(load(out), record(model, size.seed))
    assert len(differences) == size.num_hidden_layers * 5 + 2
    assert not failing(differences)


@pytest.mark.parametrize("golden", FORMS)
def test_the_recording_is_what_transformers_computes_today(golden: str) -> None:
    # Made anew with tests/golden/gpt-neox/make.py; other versions may round otherwise.
    size = Size(**json.loads((GOLDEN / golden / "config.json").read_bytes())["constructor"])
    model = original(size)
    for name, tensor in published(model).items():
        assert torch.equal(tensor, golden_checkpoint(golden)[name]), name
    for name, tensor in record(model, size.seed).items():
        torch.testing.assert_close(tensor, golden_tensors(golden)[name], rtol=1e-4, atol=1e-5)


def contiguous(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    """Read the rows of ``query_key_value`` as all q, then all k, then all v."""
    for leaf in ("weight", "bias"):
        parts = [network.get_parameter(f"{ATTENTION}.{word}_proj.{leaf}") for word in "qkv"]
        fused = torch.stack([part.view(3, 16, *part.shape[1:]) for part in parts], dim=1)
        for part, rows in zip(parts, fused.flatten(0, 2).chunk(3), strict=True):
            part.data = rows


def neighbours_turned(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def rotate(x: Tensor, rope: Tensor) -> Tensor:
        cos, sin = rope
        width = 2 * cos.shape[-1]
        even, odd = x[..., 0:width:2], x[..., 1:width:2]
        turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
        return torch.cat([turned.flatten(-2), x[..., width:]], dim=-1)

    monkeypatch.setattr(gpt_neox, "rotate", rotate)


def the_end_turned(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = gpt_neox.rotate
    monkeypatch.setattr(gpt_neox, "rotate", lambda x, rope: turn(x.flip(-1), rope).flip(-1))


def configured(**changes: Any) -> Mutant:
    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        assert isinstance(network, GPTNeoX)
        network.config = replace(network.config, **changes)

    return mutate


def sequential(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    for layer in network.get_submodule("layers").children():
        vars(layer)["parallel"] = False


def tanh(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    for module in network.modules():
        if "approximate" in vars(module):
            vars(module)["approximate"] = "tanh"


def not_causal(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, k, v, is_causal: attend(q, k, v)
    )


ATTENTION = "layers.0.attention"
MUTANTS: dict[str, Mutant] = {
    "query, key and value contiguous": contiguous,
    "query and key swapped": swapped(f"{ATTENTION}.q_proj", f"{ATTENTION}.k_proj"),
    "value and output swapped": swapped(f"{ATTENTION}.v_proj", f"{ATTENTION}.out_proj"),
    "norms of a layer swapped": swapped("layers.0.attention_norm", "layers.0.ffn_norm"),
    "layers swapped": swapped("layers.0.ffn", "layers.1.ffn"),
    "embedding and head swapped": swapped("token_embedding", "lm_head"),
    **{
        f"{norm} without weight": ignored(norm)
        for norm in ("layers.0.attention_norm", "layers.1.ffn_norm", "final_norm")
    },
    "neighbours turned": neighbours_turned,
    "the end of heads turned": the_end_turned,
    "nothing turned": configured(rotary=0),
    "whole heads turned": configured(rotary=16),
    "rope base 5000": configured(rope_base=5000.0),
    "one sublayer after the other": sequential,
    "gelu by tanh": tanh,
    "eps 1e-2": with_epsilon(1e-2),
    "not causal": not_causal,
    "silu for gelu": patched(F, "gelu", lambda x, approximate: F.silu(x)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_that_fits_every_shape_is_seen(
    mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(compare_gpt_neox(network, RECORDED))


def test_all_tensors_reach_an_output(directory: Path) -> None:
    network = load(directory)
    for name, tensor in network.state_dict().items():
        original_values = tensor.clone()
        tensor[::2].mul_(1.3)
        assert failing(compare_gpt_neox(network, RECORDED)), name
        tensor.copy_(original_values)


def test_what_follows_does_not_reach_what_came_before(directory: Path) -> None:
    network = load(directory)
    torch.testing.assert_close(network(IDS[:, :7]).logits, network(IDS).logits[:, :7])


def test_bfloat16_weights_give_nearly_the_same(directory: Path) -> None:
    logits = load(directory).bfloat16()(IDS).logits
    assert logits.dtype == torch.bfloat16
    expected = RECORDED["output.logits"]
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


def test_the_published_size_has_the_tensors_of_its_header() -> None:
    plan = api.plan(HEADERS / "pythia-70m.json", model="gpt-neox")
    record_, shapes = described("gpt-neox")
    assert (plan.used, len(plan.dropped), len(plan.targets)) == (6 * 12 + 4, 6 * 3, 6 * 16 + 4)
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    network = build_network(record_)
    assert {name: tuple(held.shape) for name, held in network.named_parameters()} == shapes


# As the cards of the published models state them.
PARAMETERS = {
    "pythia-70m": 70_426_624,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
    "gpt-neox-20b": 20_554_567_680,
}


@pytest.mark.parametrize("variant", PARAMETERS)
def test_a_variant_has_as_many_parameters_as_were_published(variant: str) -> None:
    _, shapes = described("gpt-neox", [variant])
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == PARAMETERS[variant]


def test_the_names_of_the_model_in_memory_are_a_variant(tmp_path: Path) -> None:
    model = original(Size())
    save_file(model.state_dict(), tmp_path / "memory.safetensors")
    dims = read_dims(MODELS / "gpt-neox" / "golden-dims.yaml", [])
    plan = api.plan(
        tmp_path / "memory.safetensors", model="gpt-neox", variant="state-dict", dims=dims
    )
    assert (plan.used, len(plan.targets)) == (2 * 12 + 4, 2 * 16 + 4)


def test_a_variant_has_conventions_of_its_own() -> None:
    plain, _ = described("gpt-neox")
    large, _ = described("gpt-neox", ["gpt-neox-20b", "sequential"])
    assert (plain.conventions["activation"], plain.conventions["residual"]) == (
        "gelu_erf",
        "parallel",
    )
    assert large.conventions == {
        **plain.conventions,
        "activation": "gelu_tanh",
        "residual": "sequential",
    }


def test_a_manifest_states_the_conventions_of_its_variant(directories: dict[str, Path]) -> None:
    manifest = json.loads((directories["gpt-neox-sequential"] / "manifest.json").read_bytes())
    stated = manifest["model"]["conventions"]
    assert (stated["activation"], stated["residual"]) == ("gelu_tanh", "sequential")


def test_a_convention_that_is_not_implemented_is_refused() -> None:
    record_, _ = described("gpt-neox")
    with pytest.raises(MismatchError, match="residual"):
        build_network(replace(record_, conventions={**record_.conventions, "residual": "none"}))


OTHER_SIZES = {
    "one layer of one head": {"layers": 1, "heads": 1},
    "no layer": {"layers": 0},
    "nothing turned": {"rotary_percent": 0},
    "all turned": {"rotary_percent": 100},
    "heads of odd width, turned in part": {"hidden": 27, "heads": 3, "ffn": 10},
}


@pytest.mark.parametrize("size", OTHER_SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_sizes_run(size: str, dtype: torch.dtype) -> None:
    dims = {"layers": 2, "hidden": 16, "heads": 2, "ffn": 24, "vocab": 80, "rotary_percent": 25}
    dims |= OTHER_SIZES[size]
    network = untrained("gpt-neox", dims, dtype)
    for tokens in (1, 11):
        output = network(IDS[:, :tokens])
        assert output.last_hidden_state.shape == (2, tokens, dims["hidden"])
        assert output.logits.shape == (2, tokens, 80)
        assert output.last_hidden_state.dtype == output.logits.dtype == dtype
        assert output.logits.isfinite().all()


@pytest.mark.parametrize(
    ("dims", "reason"),
    [
        ({"heads": 0}, "heads are equal slices of hidden"),
        ({"heads": 5}, "heads are equal slices of hidden"),
        ({"rotary_percent": 101}, "rope turns one half of the first elements"),
        ({"rotary_percent": 5}, "rope turns one half of the first elements"),
    ],
)
def test_impossible_dims_are_refused(dims: dict[str, int], reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        described("gpt-neox", dims=dims)


CONFIG = GPTNeoXConfig(1, 16, 2, 8, 9, 4, 10000.0, 1e-5)


@pytest.mark.parametrize(
    "changes", [{"heads": 0}, {"heads": 3}, {"rotary": 3}, {"rotary": 10}], ids=str
)
def test_a_network_of_impossible_dims_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"equal heads|two halves"):
        GPTNeoXConfig(**{**asdict(CONFIG), **changes})


def test_inputs_of_another_shape_are_refused(directory: Path) -> None:
    with pytest.raises(UsageError, match="another shape"):
        load(directory)(IDS[0])
