from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conversion_fixture import convert_golden, described, failing, untrained, without_effect
from mutants import Mutant, gelu_tanh, ignored, patched, replaced, swapped, with_epsilon
from oracle_semantic_codec import (
    semantic_codec_outputs,
    semantic_codec_weights,
    without_decoder,
)
from parity import Difference, compare
from reference_weights import HEADERS, golden_checkpoint, golden_tensors
from torch import Tensor, nn
from ulps import assert_near

from converter import api
from converter.errors import PlanError, UsageError
from converter.manifest import Dim
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import build_network, semantic_codec

TOLERANCE = 1e-5
GOLDEN = golden_tensors("semantic_codec")
CHECKPOINT = golden_checkpoint("semantic_codec")
WEIGHTS = semantic_codec_weights(CHECKPOINT)
FOLDS = frozenset({"quantizer.in_proj.weight", "quantizer.out_proj.weight"})
SMALL: dict[str, Dim] = {
    "layers": 2,
    "hidden": 7,
    "width": 5,
    "ffn": 11,
    "codes": 13,
    "codebook_dim": 3,
}


@pytest.fixture(scope="module", params=["full", "inference"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("semantic-codec") / request.param
    return convert_golden(out, "semantic_codec", "semantic-codec", variant=[request.param])


def load(directory: Path, device: str = "cpu") -> semantic_codec.SemanticCodec:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, semantic_codec.SemanticCodec)
    return network


def differences(
    network: semantic_codec.SemanticCodec, tolerance: float = TOLERANCE
) -> list[Difference]:
    got = semantic_codec_outputs(network, GOLDEN)
    decoded = {} if network.decoder is not None else {"output.decoder"}
    recorded = {name: tensor for name, tensor in GOLDEN.items() if name not in decoded}
    return compare(got, recorded, tolerance)


def test_every_recorded_output_and_intermediate_is_met(directory: Path) -> None:
    network = load(directory)
    found = differences(network)
    assert len(found) == (7 if network.decoder is not None else 6)
    assert not failing(found)
    assert torch.equal(network(GOLDEN["input.feat"]).codes, GOLDEN["output.codes"])


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda(directory: Path) -> None:
    network = load(directory, "cuda")
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert not failing(differences(network, 1e-4))
        codes = network(GOLDEN["input.feat"].cuda()).codes
    assert torch.equal(codes.cpu(), GOLDEN["output.codes"])


def test_every_tensor_is_what_the_facts_make_of_the_checkpoint(directory: Path) -> None:
    expected = WEIGHTS if directory.name == "full" else without_decoder(WEIGHTS)
    assert_near(load_tensors(directory), expected, FOLDS)


def without_g(part: str) -> Mutant:
    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        weight = CHECKPOINT[f"quantizer.quantizers.0.{part}ect.weight_v"]
        network.get_parameter(f"quantizer.{part}.weight").data = weight

    return mutate


def rows_normalised(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    codebook = network.get_parameter("quantizer.codebook.weight")
    codebook.data = F.normalize(codebook.data, dim=-1)


def scale_ignored(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    network.get_parameter("encoder.blocks.1.layer_scale").data.fill_(1)


def nearest_as_stored(quantizer: semantic_codec.Quantizer, latents: Tensor) -> Tensor:
    return torch.cdist(latents, quantizer.codebook.weight).argmin(dim=-1)


MUTANTS: dict[str, Mutant] = {
    "g of the first projection ignored": without_g("in_proj"),
    "g of the last projection ignored": without_g("out_proj"),
    "norm weight ignored": ignored("encoder.blocks.1.norm"),
    "norms swapped": swapped("encoder.input_norm", "encoder.final_norm"),
    "norms of neighbours swapped": swapped("encoder.blocks.0.norm", "encoder.blocks.1.norm"),
    "neighbours swapped": swapped("encoder.blocks.0.fc1", "encoder.blocks.1.fc1"),
    "eps 1e-2": with_epsilon(1e-2),
    "tanh form of gelu": replaced("gelu", gelu_tanh),
    "layer scale ignored": scale_ignored,
    "layer scale taken for the norm's weight": swapped(
        "encoder.blocks.2.layer_scale", "encoder.blocks.2.norm.weight"
    ),
    "normalised rows returned": rows_normalised,
    "nearest of rows as stored": patched(semantic_codec.Quantizer, "match", nearest_as_stored),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_is_seen(mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(differences(network))


def test_every_tensor_has_an_effect(directory: Path) -> None:
    network = load(directory)
    assert not without_effect(network, partial(differences, network))


@pytest.mark.parametrize("directory", ["full"], indirect=True)
def test_an_encoder_in_the_place_of_the_decoder_is_seen(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(directory)
    swapped("encoder", "decoder")(network, monkeypatch)
    assert failing(differences(network))


@pytest.mark.parametrize("directory", ["inference"], indirect=True)
def test_decoding_without_a_decoder_is_refused(directory: Path) -> None:
    with pytest.raises(UsageError, match="converted without its decoder"):
        load(directory).decode(GOLDEN["output.quantized"])


def test_rows_of_any_number_are_looked_up(directory: Path) -> None:
    network, codes = load(directory), GOLDEN["output.codes"]
    one_by_one = [network.vq2emb(row[None]) for row in codes]
    torch.testing.assert_close(network.vq2emb(codes), torch.cat(one_by_one))


@pytest.mark.parametrize(
    ("variant", "used", "dropped", "made"), [("full", 239, 0, 237), ("inference", 123, 116, 121)]
)
def test_the_published_size_has_the_tensors_of_its_header(
    variant: str, used: int, dropped: int, made: int
) -> None:
    plan = api.plan(HEADERS / "semantic_codec.json", model="semantic-codec", variant=[variant])
    assert (plan.used, len(plan.dropped), len(plan.targets)) == (used, dropped, made)
    assert all(drop.name.startswith("decoder.") for drop in plan.dropped)
    record, shapes = described("semantic-codec", [variant])
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    state = build_network(record).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dims", [{}, {"layers": 1, "decoder": 0}, {"layers": 0, "kernel": 1}])
def test_other_sizes_run(dims: dict[str, Dim], dtype: torch.dtype) -> None:
    network = untrained("semantic-codec", SMALL | dims, dtype)
    assert isinstance(network, semantic_codec.SemanticCodec)
    for frames in (1, 9):
        encoded = network.encode(torch.randn(2, frames, 7, dtype=dtype))
        assert encoded.codes.shape == (2, frames)
        assert encoded.codes.max() < 13
        assert encoded.quantized.shape == (2, frames, 7)
        assert encoded.quantized.dtype == dtype
        assert encoded.quantized.isfinite().all()
        if network.decoder is not None:
            decoded = network.decode(encoded.quantized)
            assert (decoded.shape, decoded.dtype) == ((2, frames, 7), dtype)


@pytest.mark.parametrize(
    ("dims", "because"),
    [
        ({"kernel": 6}, "a convolution of even kernel"),
        ({"codes": 0}, "no codebook is empty"),
        ({"decoder": 2}, "there is a decoder"),
    ],
)
def test_dims_that_cannot_work_are_refused_with_the_reason(
    dims: dict[str, Dim], because: str
) -> None:
    with pytest.raises(PlanError, match=because):
        api.plan(HEADERS / "semantic_codec.json", model="semantic-codec", dims=dims)


def test_a_network_of_even_kernel_is_refused() -> None:
    model, _ = described("semantic-codec", dims=SMALL)
    with pytest.raises(UsageError, match="even kernel"):
        build_network(replace(model, dims={**model.dims, "kernel": 6}))


@pytest.mark.parametrize("shape", [(21, 28), (2, 21, 27), (2, 0, 28)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...], directory: Path) -> None:
    with pytest.raises(UsageError, match="features of another shape"):
        load(directory)(torch.zeros(shape))
