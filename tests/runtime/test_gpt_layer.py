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
    without_effect,
)
from mutants import Mutant, changed
from oracle_s2mel import gpt_layer_outputs, gpt_layer_weights
from parity import Difference, compare
from reference_weights import HEADERS, golden_checkpoint, golden_tensors
from torch import nn

from converter import api
from converter.errors import PlanError, UsageError
from converter.manifest import Dim
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import build_network
from converter.runtime.networks.gpt_layer import GPTLayer

TOLERANCE = 2e-5
GOLDEN = golden_tensors("s2mel")
RECORDED = {"output.gpt_layer.y": GOLDEN["output.gpt_layer.y"]}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gpt-layer") / "out"
    return convert_golden(out, "s2mel", "gpt-layer", scope="net.gpt_layer.")


def load(directory: Path, device: str = "cpu") -> GPTLayer:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, GPTLayer)
    return network


def differences(network: GPTLayer, tolerance: float = TOLERANCE) -> list[Difference]:
    return compare(gpt_layer_outputs(network, GOLDEN), RECORDED, tolerance)


def test_the_recorded_output_is_met(directory: Path) -> None:
    assert not failing(differences(load(directory)))


@pytest.mark.cuda
def test_the_recorded_output_is_met_on_cuda(directory: Path) -> None:
    assert not failing(differences(load(directory, "cuda"), 1e-4))


def test_every_tensor_is_what_the_facts_make_of_the_checkpoint(directory: Path) -> None:
    expected = gpt_layer_weights(golden_checkpoint("s2mel"))
    assert_same_tensors(load_tensors(directory), expected)


def test_the_published_size_has_the_tensors_of_its_header() -> None:
    plan = api.plan(HEADERS / "s2mel.json", model="gpt-layer", source_prefix="net.")
    assert (plan.used, len(plan.dropped), len(plan.targets)) == (6, 0, 6)
    record, shapes = described("gpt-layer")
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    state = build_network(record).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes


def without_bias(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    network.get_parameter("layers.1.bias").data.fill_(0)


# No two of its tensors are of one shape, so none can stand in the place of another.
MUTANTS: dict[str, Mutant] = {
    "relu between layers": changed("layers.0", F.relu),
    "silu between layers": changed("layers.1", F.silu),
    "silu at the end": changed("layers.2", F.silu),
    "a bias ignored": without_bias,
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_is_seen(mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(differences(network))


def test_every_tensor_has_an_effect(directory: Path) -> None:
    network = load(directory)
    assert not without_effect(network, partial(differences, network))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("widths", [[3, 4], [5, 5, 5], [8, 1, 2, 7, 6]])
def test_other_sizes_run(widths: list[int], dtype: torch.dtype) -> None:
    network = untrained("gpt-layer", {"widths": list(widths)}, dtype)
    states = network(torch.randn(2, 9, widths[0], dtype=dtype))
    assert states.shape == (2, 9, widths[-1])
    assert states.dtype == dtype


@pytest.mark.parametrize(
    ("widths", "because"), [([1280], "from one width to another"), ([4, 0, 4], "no width is empty")]
)
def test_dims_that_cannot_work_are_refused_with_the_reason(widths: list[Dim], because: str) -> None:
    with pytest.raises(PlanError, match=because):
        api.plan(HEADERS / "s2mel.json", model="gpt-layer", dims={"widths": widths})


def test_a_network_of_one_width_is_refused() -> None:
    model, _ = described("gpt-layer")
    with pytest.raises(UsageError, match="from one width to another"):
        build_network(replace(model, dims={"widths": [4]}))


def test_states_of_another_width_are_refused(directory: Path) -> None:
    with pytest.raises(UsageError, match="states have another shape"):
        load(directory)(torch.zeros(1, 9, 35))
