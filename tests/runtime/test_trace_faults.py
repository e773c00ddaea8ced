"""A fault is put into a network, both are traced, and ``compare`` names the module that has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conversion_fixture import MODELS, convert_golden
from mutants import Mutant, patched, replaced, swapped, transposed
from reference_weights import GOLDEN
from torch import Tensor, nn

from converter import api
from converter.compare import Comparison
from converter.dims import read_dims
from converter.runtime import load_model, trace
from converter.runtime.networks import campplus, dit, soprano_lm, wav2vec_bert
from converter.runtime.trace_inputs import read_inputs


def golden_inputs(name: str, prefix: str | None = None) -> dict[str, Tensor]:
    return read_inputs(GOLDEN / name / "golden.safetensors", prefix)


def convert_dit(out: Path) -> Path:
    source, dims = GOLDEN / "s2mel" / "checkpoint.safetensors", MODELS / "dit" / "golden-dims.yaml"
    api.convert(source, out, model="dit", dims=read_dims(dims, []), source_prefix="net.")
    return out


def wav2vec_inputs() -> dict[str, Tensor]:
    inputs = golden_inputs("wav2vec-bert")
    return {"features": inputs["input_features"], "attention_mask": inputs["attention_mask"]}


@dataclass(frozen=True)
class Network:
    """How a small instance is converted, and what it is run on."""

    convert: Callable[[Path], Path]
    inputs: Callable[[], dict[str, Tensor]]


NETWORKS = {
    "bert": Network(
        partial(convert_golden, golden="bert", model="bert", variant=("legacy", "pretraining")),
        partial(golden_inputs, "bert"),
    ),
    "bigvgan": Network(
        partial(convert_golden, golden="bigvgan", model="bigvgan"),
        partial(golden_inputs, "bigvgan"),
    ),
    "campplus": Network(
        partial(convert_golden, golden="campplus", model="campplus"),
        lambda: {"features": golden_inputs("campplus")["feat"]},
    ),
    "conformer": Network(
        partial(convert_golden, golden="conformer", model="conformer", scope=""),
        partial(golden_inputs, "conformer"),
    ),
    "dit": Network(convert_dit, partial(golden_inputs, "s2mel", "input.estimator.")),
    "gpt2": Network(
        partial(convert_golden, golden="gpt2", model="gpt2", variant=["saved"]),
        partial(golden_inputs, "gpt2"),
    ),
    "soprano-lm": Network(
        partial(convert_golden, golden="soprano-lm", model="soprano-lm"),
        partial(golden_inputs, "soprano-lm"),
    ),
    "wav2vec-bert": Network(
        partial(convert_golden, golden="wav2vec-bert", model="wav2vec-bert"), wav2vec_inputs
    ),
}


def without_residual(path: str) -> Mutant:
    """Forget to add the input of a post-norm layer to what its attention makes of it."""

    def forward(layer: Any, x: Tensor, mask: Tensor | None) -> Tensor:
        x = layer.attention_norm(layer.attention(x, mask))
        out: Tensor = layer.ffn_norm(x + layer.ffn(x))
        return out

    def mutate(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = network.get_submodule(path)
        monkeypatch.setattr(layer, "forward", MethodType(forward, layer))

    return mutate


def with_eps(path: str, eps: float) -> Mutant:
    def mutate(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(network.get_submodule(path), "eps", eps)

    return mutate


def centred(path: str) -> Mutant:
    """Take the mean away where a norm should divide by the root mean square alone."""

    def mutate(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        norm = network.get_submodule(path)
        assert isinstance(norm, nn.RMSNorm)
        assert norm.eps is not None
        wrong = nn.LayerNorm(norm.weight.shape[0], norm.eps, bias=False)
        wrong.weight.data = norm.weight.data
        parent, _, leaf = path.rpartition(".")
        monkeypatch.setattr(network.get_submodule(parent), leaf, wrong)

    return mutate


def not_as_logarithm(path: str) -> Mutant:
    """Read a parameter as it is, where its logarithm is stored."""

    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        alpha = network.get_parameter(path)
        alpha.data = alpha.data.abs().clamp(min=1e-3).log()

    return mutate


def in_pairs(x: Tensor, rope: Tensor) -> Tensor:
    """Turn neighbours together, where element i belongs to element i + W/2."""
    cos, sin = rope
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)


def in_halves(x: Tensor, rope: Tensor) -> Tensor:
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


_gelu = F.gelu
_attention = F.scaled_dot_product_attention
_rows = wav2vec_bert.distance_rows


def exact_gelu(x: Tensor, approximate: str) -> Tensor:
    assert approximate == "tanh"
    return _gelu(x)


def unscaled(*args: Any, **options: Any) -> Tensor:
    return _attention(*args, **{**options, "scale": 1.0})


def one_row_further(*args: Any) -> Tensor:
    return (_rows(*args) - 1).clamp(min=0)


def biased_std(x: Tensor) -> Tensor:
    return torch.cat([x.mean(dim=-1), x.std(dim=-1, correction=0)], dim=1)


def scale_and_shift_exchanged(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swap scale and shift in the last modulation."""
    layer: Any = network.get_submodule("final_layer")

    def forward(_: Any, y: Tensor, t1: Tensor) -> Tensor:
        scale, shift = layer.modulation(F.silu(t1))[:, None].chunk(2, dim=-1)
        normed = F.layer_norm(y, y.shape[-1:], eps=layer.eps)
        out: Tensor = layer.linear(normed * (1 + scale) + shift)
        return out

    monkeypatch.setattr(layer, "forward", MethodType(forward, layer))


@dataclass(frozen=True)
class Fault:
    """A mistake as ports make it, and what ``compare`` is to say of it."""

    name: str
    network: str
    mutate: Mutant = field(repr=False)
    module: str
    kind: str
    before: str | None = None


FAULTS = (
    Fault(
        "the epsilon of another framework",
        "bert",
        with_eps("layers.1.ffn_norm", 1e-3),
        "layers.1.ffn_norm",
        "module",
    ),
    Fault(
        "a residual is missing",
        "bert",
        without_residual("layers.1"),
        "layers.1",
        "own code",
        "layers.1.attention_norm",
    ),
    Fault(
        "query and key swapped",
        "gpt2",
        swapped("layers.1.attention.q_proj", "layers.1.attention.k_proj"),
        "layers.1.attention.q_proj",
        "module",
    ),
    Fault(
        "the other GELU",
        "gpt2",
        replaced("gelu", exact_gelu),
        "layers.0.ffn",
        "own code",
        "layers.0.ffn.fc2",
    ),
    Fault(
        "rotary pairs in the wrong layout",
        "soprano-lm",
        patched(soprano_lm, "rotate", in_pairs),
        "layers.0.attention",
        "own code",
        "layers.0.attention.out_proj",
    ),
    Fault(
        "the wrong kind of norm",
        "soprano-lm",
        centred("layers.1.attention.k_norm"),
        "layers.1.attention.k_norm",
        "module",
    ),
    Fault(
        "a weight transposed",
        "conformer",
        transposed("layers.1.attention.out_proj.weight"),
        "layers.1.attention.out_proj",
        "module",
    ),
    Fault(
        "attention without its scale",
        "conformer",
        replaced("scaled_dot_product_attention", unscaled),
        "layers.0.attention",
        "own code",
        "layers.0.attention.out_proj",
    ),
    Fault(
        "positions off by one",
        "wav2vec-bert",
        patched(wav2vec_bert, "distance_rows", one_row_further),
        "",
        "own code",
        "layers.0",
    ),
    Fault(
        "the alpha of an activation not taken as a logarithm",
        "bigvgan",
        not_as_logarithm("stages.1.blocks.0.activations.3.alpha"),
        "stages.1.blocks.0.activations.3",
        "own code",
        "stages.1.blocks.0.activations.3.downsample",
    ),
    Fault(
        "scale and shift exchanged",
        "dit",
        scale_and_shift_exchanged,
        "final_layer",
        "own code",
        "final_layer.linear",
    ),
    Fault(
        "rotary halves in place of pairs",
        "dit",
        patched(dit, "rotate", in_halves),
        "blocks.0.attention",
        "own code",
        "blocks.0.attention.out_proj",
    ),
    Fault(
        "a deviation of another denominator",
        "campplus",
        patched(campplus, "mean_and_std", biased_std),
        "",
        "own code",
        "embedding",
    ),
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("networks")

    @cache
    def prepared(name: str) -> Path:
        NETWORKS[name].convert(folder / name)
        trace(load_model(folder / name), NETWORKS[name].inputs(), folder / f"{name}.safetensors")
        return folder / name

    return prepared


def compared(directory: Path, network: nn.Module, out: Path, **options: Any) -> Comparison:
    """Trace ``network`` and compare it with the trace of the network of the directory."""
    trace(network, NETWORKS[directory.name].inputs(), out)
    return api.compare(directory.with_suffix(".safetensors"), out, **options)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.network}: {fault.name}")
def test_the_module_that_has_the_fault_is_named(
    fault: Fault,
    converted: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = converted(fault.network)
    network = load_model(directory)
    fault.mutate(network, monkeypatch)
    comparison = compared(directory, network, tmp_path / "faulty.safetensors")
    first = comparison.first
    assert first is not None
    assert (first.call.name, first.kind) == (fault.module, fault.kind)
    assert (first.before and first.before.name) == fault.before
    assert first.is_certain
    assert comparison.inputs == "equal"
    assert not comparison.holds


def test_the_faults_are_ten_or_more_in_several_networks() -> None:
    assert len({fault.name for fault in FAULTS}) >= 10
    assert {fault.network for fault in FAULTS} == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_without_a_fault_is_equal_to_itself(
    name: str, converted: Callable[[str], Path], tmp_path: Path
) -> None:
    directory = converted(name)
    comparison = compared(directory, load_model(directory), tmp_path / "same.safetensors")
    assert comparison.holds
    assert comparison.count("equal") == len(comparison.tensors) > 20
    assert comparison.step is None


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_network_that_rounds_otherwise_holds(
    name: str, converted: Callable[[str], Path], tmp_path: Path
) -> None:
    directory = converted(name)
    inputs = NETWORKS[name].inputs()
    wide = {key: t.double() if t.is_floating_point() else t for key, t in inputs.items()}
    trace(load_model(directory).double(), wide, tmp_path / "wide.safetensors")
    comparison = api.compare(
        directory.with_suffix(".safetensors"), tmp_path / "wide.safetensors", complete=True
    )
    assert comparison.holds
    assert comparison.step is None
    assert comparison.count("agrees") > len(comparison.tensors) // 2


def test_a_fault_within_the_tolerance_is_pointed_at_as_a_step(
    converted: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = converted("bert")
    network = load_model(directory)
    with_eps("layers.0.ffn_norm", 1e-5)(network, monkeypatch)  # it is 1e-12
    comparison = compared(directory, network, tmp_path / "faulty.safetensors")
    assert comparison.holds
    assert comparison.step is not None
    assert comparison.step.event.call.name == "layers.0.ffn_norm"
    assert not comparison.step.event.is_input
    stricter = api.compare(
        directory.with_suffix(".safetensors"), tmp_path / "faulty.safetensors", rtol=1e-6
    )
    assert stricter.first is not None
    assert stricter.first.call.name == "layers.0.ffn_norm"
