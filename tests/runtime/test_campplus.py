from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conversion_fixture import assert_same_tensors, convert_golden, described, failing, untrained
from mutants import Mutant, changed, patched, replaced, swapped, with_epsilon
from oracle_campplus import campplus_outputs, campplus_weights
from parity import Difference, compare
from reference_weights import HEADERS, golden_checkpoint, golden_tensors
from torch import Tensor, nn

from converter import api
from converter.errors import PlanError, UsageError
from converter.manifest import Dim
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import build_network, campplus

TOLERANCE = 1e-5
GOLDEN = golden_tensors("campplus")
CHECKPOINT = golden_checkpoint("campplus")
SMALL: dict[str, Dim] = {
    "feat": 8,
    "embedding": 5,
    "growth": 3,
    "bn_size": 2,
    "init": 4,
    "width": 2,
    "block_layers": [1, 2, 1],
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_golden(tmp_path_factory.mktemp("campplus") / "out", "campplus", "campplus")


def load(directory: Path, device: str = "cpu") -> campplus.CAMPPlus:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, campplus.CAMPPlus)
    return network


def differences(network: campplus.CAMPPlus, tolerance: float = TOLERANCE) -> list[Difference]:
    return compare(campplus_outputs(network, GOLDEN), GOLDEN, tolerance)


def test_every_recorded_output_and_intermediate_is_met(directory: Path) -> None:
    found = differences(load(directory))
    assert len(found) == 7
    assert not failing(found)


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda(directory: Path) -> None:
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert not failing(differences(load(directory, "cuda"), 1e-4))


# Some masks move the outputs by hardly more than the tolerance, so this is their proof.
def test_every_tensor_is_what_the_facts_make_of_the_checkpoint(directory: Path) -> None:
    assert_same_tensors(load_tensors(directory), campplus_weights(CHECKPOINT))


def weights_ignored(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    for module in network.modules():
        if isinstance(module, campplus.BatchNorm) and module.weight is not None:
            module.weight.data.fill_(1)


def variances_swapped(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    one, other = (network.get_submodule(f"head.norm{n}") for n in (1, 2))
    one.running_var, other.running_var = other.running_var, one.running_var


def frequency_major(x: Tensor) -> Tensor:
    rows, columns, frames = x.shape
    return x.reshape(rows, 32, columns // 32, frames).transpose(1, 2).flatten(1, 2)


def output_first(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    """Have one layer's channels in front of those that it took."""
    growth, layer = 4, network.get_submodule("blocks.2.layers.1")
    layer.register_forward_pre_hook(lambda _layer, inputs: (inputs[0].roll(growth, dims=1),))


def biased(x: Tensor) -> Tensor:
    return torch.cat([x.mean(dim=-1), x.std(dim=-1, correction=0)], dim=1)


def mean_over_padding(x: Tensor, segment: int) -> Tensor:
    """Average the last segment as if it were as long as the others."""
    padded = F.pad(x, (0, -x.shape[-1] % segment))
    means = padded.reshape(*x.shape[:2], -1, segment).mean(dim=-1)
    return means.repeat_interleave(segment, dim=-1)[..., : x.shape[-1]]


def mean_over_all(x: Tensor, _: int) -> Tensor:
    return x.mean(dim=-1, keepdim=True)


LAYER = "blocks.1.layers.3"
MUTANTS: dict[str, Mutant] = {
    "norm weights ignored": weights_ignored,
    "variances of two norms swapped": variances_swapped,
    "norms of a block swapped": swapped(
        "head.stages.0.blocks.1.norm1", "head.stages.0.blocks.1.norm2"
    ),
    "convolutions of a block swapped": swapped(
        "head.stages.1.blocks.0.conv1", "head.stages.1.blocks.0.conv2"
    ),
    "convolutions of neighbours swapped": swapped(f"{LAYER}.conv", "blocks.1.layers.4.conv"),
    "masks of neighbours swapped": swapped(f"{LAYER}.mask", "blocks.1.layers.4.mask"),
    "eps 1e-2": with_epsilon(1e-2),
    "silu instead of relu": replaced("relu", F.silu),
    "frequency-major": changed("head", frequency_major),
    "output before input": output_first,
    "biased deviation": patched(campplus, "mean_and_std", biased),
    "segment mean over padding": patched(campplus, "segment_mean", mean_over_padding),
    "no segments": patched(campplus, "segment_mean", mean_over_all),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_is_seen(mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(differences(network))


def test_the_published_size_has_the_tensors_of_its_header() -> None:
    plan = api.plan(HEADERS / "campplus_cn_common.json", model="campplus")
    assert (plan.used, len(plan.dropped), len(plan.targets)) == (815, 122, 815)
    assert all(drop.name.endswith(".num_batches_tracked") for drop in plan.dropped)
    record, shapes = described("campplus")
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    state = build_network(record).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "dims",
    [
        pytest.param({}, id="odd widths"),
        pytest.param({"block_layers": [3, 1, 4], "dilations": [3, 1, 2]}, id="other dilations"),
        pytest.param({"head_blocks": [1]}, id="one stage of one block in the head"),
        pytest.param({"head_blocks": [1, 3, 2], "feat": 32}, id="three stages in the head"),
        pytest.param(
            {"kernel": 1, "tdnn_kernel": 3, "segment": 2}, id="other kernels and segments"
        ),
    ],
)
def test_other_sizes_run(dims: dict[str, Dim], dtype: torch.dtype) -> None:
    network = untrained("campplus", SMALL | dims, dtype)
    assert isinstance(network, campplus.CAMPPlus)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.abs_()
    for frames in (3, 8):
        vectors = network(torch.randn(2, frames, network.config.feat, dtype=dtype))
        assert vectors.shape == (2, 5)
        assert vectors.dtype == dtype
        assert vectors.isfinite().all()


@pytest.mark.parametrize(("frames", "segment"), [(1, 3), (3, 3), (7, 3), (8, 1), (5, 100)])
def test_the_last_segment_is_averaged_over_the_frames_it_has(frames: int, segment: int) -> None:
    x = torch.randn(2, 3, frames, dtype=torch.float64)
    parts = [
        part.mean(dim=-1, keepdim=True).expand_as(part) for part in torch.split(x, segment, dim=-1)
    ]
    torch.testing.assert_close(campplus.segment_mean(x, segment), torch.cat(parts, dim=-1))


@pytest.mark.parametrize(
    ("dims", "because"),
    [
        ({"block_layers": [12, 24]}, "three dense blocks"),
        ({"feat": 84}, "halve the frequencies"),
        ({"head_blocks": [2, 0]}, "the first block of a stage"),
        ({"segment": 0}, "no segment is empty"),
        ({"growth": 1, "bn_size": 1}, "half of the bottleneck"),
        ({"kernel": 2}, "a convolution of even kernel"),
        ({"dilations": [1, 0, 2]}, "the taps of a convolution"),
    ],
)
def test_dims_that_cannot_work_are_refused_with_the_reason(
    dims: dict[str, Dim], because: str
) -> None:
    with pytest.raises(PlanError) as raised:
        api.plan(HEADERS / "campplus_cn_common.json", model="campplus", dims=dims)
    assert any(because in finding.what for finding in raised.value.findings)


@pytest.mark.parametrize(
    ("dims", "what"),
    [
        ({"dilations": [1, 2]}, "a depth and a dilation"),
        ({"feat": 12}, "feat 12 cannot be halved"),
        ({"tdnn_kernel": 4}, "even kernel"),
        ({"head_blocks": [0, 2]}, "first block of a stage"),
        ({"segment": 0}, "at least one frame"),
    ],
)
def test_dims_that_do_not_fit_together_are_refused(dims: dict[str, Dim], what: str) -> None:
    model, _ = described("campplus", dims=SMALL)
    with pytest.raises(UsageError, match=what):
        build_network(replace(model, dims={**model.dims, **dims}))


@pytest.mark.parametrize("shape", [(9, 16), (2, 9, 15), (2, 2, 16)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...], directory: Path) -> None:
    with pytest.raises(UsageError, match="features have another shape"):
        load(directory)(torch.zeros(shape))
