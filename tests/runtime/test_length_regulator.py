from __future__ import annotations

import math
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
    without_effect,
)
from mutants import Mutant, changed, ignored, replaced, swapped, with_epsilon
from oracle_s2mel import length_regulator_outputs, length_regulator_weights
from parity import Difference, compare
from reference_weights import HEADERS, golden_checkpoint, golden_tensors
from torch import Tensor

from converter import api
from converter.errors import PlanError, UsageError
from converter.manifest import Dim
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import build_network
from converter.runtime.networks.length_regulator import LengthRegulator

TOLERANCE = 2e-5
GOLDEN = golden_tensors("s2mel")
RECORDED = {
    name: tensor for name, tensor in GOLDEN.items() if name.startswith("output.length_regulator.")
}
FEATURES, LENGTHS = (GOLDEN[f"input.length_regulator.{name}"] for name in ("x", "ylens"))
SMALL: dict[str, Dim] = {"input": 7, "channels": 5}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("length-regulator") / "out"
    return convert_golden(out, "s2mel", "length-regulator", scope="net.length_regulator.")


def load(directory: Path, device: str = "cpu") -> LengthRegulator:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, LengthRegulator)
    return network


def differences(network: LengthRegulator, tolerance: float = TOLERANCE) -> list[Difference]:
    return compare(length_regulator_outputs(network, GOLDEN), RECORDED, tolerance)


def test_every_recorded_output_is_met(directory: Path) -> None:
    found = differences(load(directory))
    assert len(found) == 2
    assert not failing(found)


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda(directory: Path) -> None:
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert not failing(differences(load(directory, "cuda"), 1e-4))


def test_every_tensor_is_what_the_facts_make_of_the_checkpoint(directory: Path) -> None:
    expected = length_regulator_weights(golden_checkpoint("s2mel"))
    assert_same_tensors(load_tensors(directory), expected)


def test_the_published_size_has_the_tensors_of_its_header() -> None:
    header = HEADERS / "s2mel.json"
    plan = api.plan(header, model="length-regulator", source_prefix="net.")
    assert (plan.used, len(plan.targets), plan.out_of_scope) == (20, 20, 262)
    dropped = {drop.name.removeprefix("net.length_regulator.") for drop in plan.dropped}
    assert dropped == {"embedding.weight", "mask_token"}
    record, shapes = described("length-regulator")
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    state = build_network(record).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes


INTERPOLATE, NORM = F.interpolate, F.group_norm


def between_frames(x: Tensor, size: int, mode: str) -> Tensor:
    assert mode == "nearest"
    return INTERPOLATE(x, size, mode="linear", align_corners=True)


def nearest_to_the_middle(x: Tensor, size: int, mode: str) -> Tensor:
    return INTERPOLATE(x, size, mode=f"{mode}-exact")


def norm_per_channel(x: Tensor, _: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return NORM(x, x.shape[1], weight, bias, eps)


def norm_within_lengths(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    normed = torch.zeros_like(x)
    for row, length in enumerate(LENGTHS.tolist()):
        within = x[row, None, :, :length]
        normed[row, :, :length] = NORM(within, groups, weight, bias, eps)
    return normed


MUTANTS: dict[str, Mutant] = {
    "norm weight ignored": ignored("layers.1.norm"),
    "eps 1e-2": with_epsilon(1e-2),
    "silu instead of mish": replaced("mish", F.silu),
    "convolutions swapped": swapped("layers.0.conv", "layers.3.conv"),
    "norms swapped": swapped("layers.1.norm", "layers.2.norm"),
    "norm weight and bias swapped": swapped("layers.0.norm.weight", "layers.0.norm.bias"),
    "linear interpolation": replaced("interpolate", between_frames),
    "nearest frame, half a frame on": replaced("interpolate", nearest_to_the_middle),
    "a group per channel": replaced("group_norm", norm_per_channel),
    "padding left out of the norms": replaced("group_norm", norm_within_lengths),
    "an activation at the end": changed("out_conv", F.mish),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_is_seen(mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(differences(network))


def test_every_tensor_has_an_effect(directory: Path) -> None:
    network = load(directory)
    assert not without_effect(network, partial(differences, network))


def test_frames_behind_a_row_are_zero(directory: Path) -> None:
    content = load(directory)(FEATURES, LENGTHS)
    for row, length in zip(content, LENGTHS.tolist(), strict=True):
        assert row[:length].all(dim=-1).all()
        assert not row[length:].any()


@pytest.mark.parametrize(("taken", "given"), [(1, 5), (3, 2), (7, 12), (50, 86), (333, 572)])
def test_frames_are_those_of_the_floor_of_a_float32_quotient(taken: int, given: int) -> None:
    network = untrained("length-regulator", SMALL | {"layers": 0}, torch.float32)
    features = torch.randn(1, taken, 7)
    step = torch.tensor(taken / given, dtype=torch.float32)
    chosen = [math.floor(float(torch.tensor(float(i)) * step)) for i in range(given)]
    stretched = network(features, torch.tensor([given]))
    expected = network(features[:, chosen], torch.tensor([given]))
    torch.testing.assert_close(stretched, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dims", [{}, {"layers": 1, "kernel": 5}, {"layers": 0}])
def test_other_sizes_run(dims: dict[str, Dim], dtype: torch.dtype) -> None:
    network = untrained("length-regulator", SMALL | dims, dtype)
    for lengths in ([9, 4], [1, 1]):
        content = network(torch.randn(2, 6, 7, dtype=dtype), torch.tensor(lengths))
        assert content.shape == (2, max(lengths), 5)
        assert content.dtype == dtype
        assert content.isfinite().all()


@pytest.mark.parametrize(
    ("dims", "because"), [({"kernel": 4}, "even kernel"), ({"channels": 0}, "no width is empty")]
)
def test_dims_that_cannot_work_are_refused_with_the_reason(
    dims: dict[str, Dim], because: str
) -> None:
    with pytest.raises(PlanError, match=because):
        api.plan(HEADERS / "s2mel.json", model="length-regulator", dims=dims)


def test_a_network_of_even_kernel_is_refused() -> None:
    model, _ = described("length-regulator", dims=SMALL)
    with pytest.raises(UsageError, match="even kernel"):
        build_network(replace(model, dims={**model.dims, "kernel": 4}))


@pytest.mark.parametrize(
    ("features", "lengths"),
    [
        (FEATURES[0], LENGTHS),
        (FEATURES[..., 1:], LENGTHS),
        (FEATURES[:, :0], LENGTHS),
        (FEATURES, LENGTHS[:1]),
    ],
    ids=["one dimension less", "another width", "no frames", "fewer lengths than rows"],
)
def test_inputs_of_another_shape_are_refused(
    features: Tensor, lengths: Tensor, directory: Path
) -> None:
    with pytest.raises(UsageError, match="other shapes"):
        load(directory)(features, lengths)
