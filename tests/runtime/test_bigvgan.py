from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conversion_fixture import convert_golden, described, failing, untrained
from mutants import Mutant, changed, patched, replaced, swapped, with_epsilon
from oracle_bigvgan import bigvgan_outputs, bigvgan_weights
from parity import Difference, compare
from reference_weights import HEADERS, golden_checkpoint, golden_tensors
from torch import Tensor
from ulps import assert_near

from converter import api
from converter.errors import PlanError, UsageError
from converter.manifest import Dim
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import bigvgan, build_network

TOLERANCE = 1e-5
SMALL: dict[str, Dim] = {"mels": 5, "channels": 16, "rates": [4, 2], "kernels": [8, 4]}
GOLDEN = golden_tensors("bigvgan")
CHECKPOINT = golden_checkpoint("bigvgan")
FOLDS = {
    "input_conv.weight": "conv_pre",
    "out_conv.weight": "conv_post",
    **{f"stages.{i}.upsample.weight": f"ups.{i}.0" for i in range(3)},
    **{
        f"stages.{i}.blocks.{j}.{convs}.{n}.weight": f"resblocks.{3 * i + j}.{convs}.{n}"
        for i, j, n in product(range(3), repeat=3)
        for convs in ("convs1", "convs2")
    },
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_golden(tmp_path_factory.mktemp("bigvgan") / "out", "bigvgan", "bigvgan")


def load(directory: Path, device: str = "cpu") -> bigvgan.BigVGAN:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, bigvgan.BigVGAN)
    return network


def differences(network: bigvgan.BigVGAN, tolerance: float = TOLERANCE) -> list[Difference]:
    return compare(bigvgan_outputs(network, GOLDEN), GOLDEN, tolerance)


def test_every_recorded_output_and_intermediate_is_met(directory: Path) -> None:
    found = differences(load(directory))
    assert len(found) == 9
    assert not failing(found)


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda(directory: Path) -> None:
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert not failing(differences(load(directory, "cuda"), 1e-4))


def test_every_tensor_is_what_the_facts_make_of_the_checkpoint(directory: Path) -> None:
    assert_near(load_tensors(directory), bigvgan_weights(CHECKPOINT), frozenset(FOLDS))


SNAKE_BETA, PAD = bigvgan.snake_beta, F.pad


def without_logarithms(x: Tensor, alpha: Tensor, beta: Tensor, eps: float) -> Tensor:
    return x + (x * alpha[:, None]).sin().square() / (beta[:, None] + eps)


def snake(x: Tensor, alpha: Tensor, _: Tensor, eps: float) -> Tensor:
    return SNAKE_BETA(x, alpha, alpha, eps)


def pad_with_zeros(x: Tensor, pads: tuple[int, int], mode: str) -> Tensor:
    assert mode == "replicate"
    return PAD(x, pads)


BLOCK = "stages.1.blocks.2"
ACTIVATION = f"{BLOCK}.activations.0"
MUTANTS: dict[str, Mutant] = {
    "convolutions of a pair swapped": swapped(f"{BLOCK}.convs1.0", f"{BLOCK}.convs2.0"),
    "dilations swapped": swapped(f"{BLOCK}.convs1.1", f"{BLOCK}.convs1.2"),
    "activations of a pair swapped": swapped(ACTIVATION, f"{BLOCK}.activations.1"),
    "alpha and beta swapped": swapped(f"{ACTIVATION}.alpha", f"{ACTIVATION}.beta"),
    "last alpha and beta swapped": swapped("final_activation.alpha", "final_activation.beta"),
    "logarithms not exponentiated": patched(bigvgan, "snake_beta", without_logarithms),
    "snake instead of snake beta": patched(bigvgan, "snake_beta", snake),
    "eps 1e-2": with_epsilon(1e-2),
    "sum instead of mean": changed("stages.1", lambda output: 3 * output),
    "zeros instead of the edges": replaced("pad", pad_with_zeros),
    "tanh instead of clamp": changed("", torch.tanh),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_is_seen(mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(differences(network))


def test_a_weight_norm_whose_g_is_ignored_is_seen(directory: Path) -> None:
    network = load(directory)
    for name, old in FOLDS.items():
        parameter = network.get_parameter(name)
        weight, parameter.data = parameter.data, CHECKPOINT[f"generator.{old}.weight_v"]
        assert failing(differences(network)), name
        parameter.data = weight


def test_filters_in_each_others_place_cannot_be_seen(directory: Path) -> None:
    tensors = load_tensors(directory)
    filters = [tensor for name, tensor in tensors.items() if name.endswith(".filter")]
    assert len(filters) == 110
    assert all(torch.equal(tensor, filters[0]) for tensor in filters)


def test_samples_are_clamped(directory: Path) -> None:
    network = load(directory)
    wave = network(GOLDEN["input.mel"])
    network.out_conv.weight.data *= 3
    torch.testing.assert_close(network(GOLDEN["input.mel"]), (3 * wave).clamp(-1, 1))
    assert (3 * wave).abs().max() > 1


def test_the_published_size_has_the_tensors_of_its_header() -> None:
    plan = api.plan(HEADERS / "bigvgan_generator.json", model="bigvgan")
    assert (plan.used, len(plan.dropped), len(plan.targets)) == (783, 0, 667)
    record, shapes = described("bigvgan")
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    state = build_network(record).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes


def test_the_hop_of_the_mel_follows_the_rates() -> None:
    record, _ = described("bigvgan")
    assert (record.audio["hop_length"], record.audio["pad_samples"]) == (256, 384)
    record, _ = described("bigvgan", dims=SMALL)
    assert (record.audio["hop_length"], record.audio["pad_samples"]) == (8, 508)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "dims",
    [
        pytest.param({"rates": [3], "kernels": [7]}, id="one stage of an odd rate"),
        pytest.param({"rates": [1, 5], "kernels": [1, 5]}, id="kernels equal to their rates"),
        pytest.param({"rates": [], "kernels": []}, id="no stage"),
        pytest.param({"resblock_kernels": [5], "dilations": [[2]]}, id="one block of one pair"),
        pytest.param(
            {"resblock_kernels": [1, 3], "dilations": [[], [4, 1]]}, id="blocks of other depths"
        ),
        pytest.param({"filter_taps": 2, "conv_kernel": 1}, id="the shortest filters"),
        pytest.param({"filter_taps": 7, "conv_kernel": 3}, id="filters of odd length"),
    ],
)
def test_other_sizes_run(dims: dict[str, Dim], dtype: torch.dtype) -> None:
    network = untrained("bigvgan", SMALL | dims, dtype)
    assert isinstance(network, bigvgan.BigVGAN)
    for frames in (1, 6):
        wave = network(torch.randn(2, 5, frames, dtype=dtype))
        assert wave.shape == (2, 1, frames * math.prod(network.config.rates))
        assert wave.dtype == dtype
        assert wave.isfinite().all()


@pytest.mark.parametrize(
    ("dims", "because"),
    [
        ({"rates": [4]}, "every stage has a rate and a kernel"),
        ({"dilations": [[1]]}, "every residual block has a kernel and a list of dilations"),
        ({"channels": 96}, "every stage halves the channels"),
        ({"kernels": [8, 8, 4, 4, 4, 5]}, "a stage gives rate samples for each that it takes"),
        ({"kernels": [8, 8, 4, 4, 4, 0]}, "a stage gives rate samples for each that it takes"),
        ({"resblock_kernels": [3, 7, 10]}, "a convolution of even kernel"),
        ({"conv_kernel": 6}, "a convolution of even kernel"),
        ({"filter_taps": 1}, "a filter at twice the rate"),
        ({"dilations": [[1], [1], [1, 0]]}, "the taps of a convolution"),
        ({"rates": [8] * 6, "kernels": [8] * 6}, "leave gaps"),
    ],
)
def test_dims_that_cannot_work_are_refused_with_the_reason(
    dims: dict[str, Dim], because: str
) -> None:
    with pytest.raises(PlanError) as raised:
        api.plan(HEADERS / "bigvgan_generator.json", model="bigvgan", dims=dims)
    assert any(because in finding.what for finding in raised.value.findings)


@pytest.mark.parametrize(
    ("dims", "what"),
    [
        ({"rates": [4]}, "a rate and a kernel"),
        ({"dilations": [[1]]}, "a kernel and dilations"),
        ({"channels": 10}, "channels 10 cannot be halved"),
        ({"kernels": [8, 5]}, "an even number more"),
        ({"resblock_kernels": [3, 7, 10]}, "even kernel"),
        ({"filter_taps": 1}, "at least two samples"),
    ],
)
def test_dims_that_do_not_fit_together_are_refused(dims: dict[str, Dim], what: str) -> None:
    model, _ = described("bigvgan", dims=SMALL)
    with pytest.raises(UsageError, match=what):
        build_network(replace(model, dims={**model.dims, **dims}))


@pytest.mark.parametrize("shape", [(10, 14), (2, 9, 14), (2, 10, 0)])
def test_a_mel_of_another_shape_is_refused(shape: tuple[int, ...], directory: Path) -> None:
    with pytest.raises(UsageError, match="mel has another shape"):
        load(directory)(torch.zeros(shape))
