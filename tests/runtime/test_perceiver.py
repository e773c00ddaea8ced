from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conversion_fixture import (
    assert_same_tensors,
    convert_golden,
    described,
    failing,
    untrained,
    without_effect,
)
from golden_perceiver import (
    MUTANTS,
    SQUARE,
    TOLERANCE,
    compare_perceiver,
    context_alone,
    perceiver_weights,
)
from mutants import with_epsilon
from parity import Difference, compare
from reference_weights import HEADERS, golden_checkpoint, golden_tensors
from torch import Tensor

from converter import api
from converter.errors import PlanError, UsageError
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import perceiver
from converter.runtime.networks.conformer import Conformer
from converter.runtime.networks.perceiver import Perceiver

RECORDED = golden_tensors("perceiver")
CONTEXT, MASK = RECORDED["input.context"], RECORDED["input.mask"][:, 5:]
LANGUAGE_MODEL = golden_tensors("gpt")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("perceiver") / "out"
    return convert_golden(out, "perceiver", "perceiver", scope="")


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("speaker") / "out"
    return convert_golden(out, "gpt", "perceiver", "golden-gpt-speaker-dims")


def load(directory: Path, device: str = "cpu") -> Perceiver:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, Perceiver)
    return network


def compare_speaker(network: Perceiver) -> list[Difference]:
    encoded = LANGUAGE_MODEL["output.conditioning_encoder"]
    name = "output.conditioning_latents"
    return compare({name: network(encoded)}, {name: LANGUAGE_MODEL[name]}, TOLERANCE)


def test_every_recorded_output_and_intermediate_is_met(directory: Path) -> None:
    differences = compare_perceiver(load(directory), RECORDED)
    assert len(differences) == 5
    assert not failing(differences)


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda(directory: Path) -> None:
    assert not failing(compare_perceiver(load(directory, "cuda"), RECORDED, tolerance=1e-4))


def test_every_canonical_tensor_is_the_one_that_the_facts_name(directory: Path) -> None:
    expected = perceiver_weights(golden_checkpoint("perceiver"))
    assert len(expected) == 24
    assert_same_tensors(load_tensors(directory), expected)


@pytest.mark.parametrize(
    ("variant", "prefix"),
    [("speaker", "perceiver_encoder."), ("emotion", "emo_perceiver_encoder.")],
)
def test_both_perceivers_of_the_language_model_convert(
    variant: str, prefix: str, tmp_path: Path
) -> None:
    out = tmp_path / variant
    convert_golden(out, "gpt", "perceiver", f"golden-gpt-{variant}-dims", variant=[variant])
    expected = perceiver_weights(golden_checkpoint("gpt"), prefix)
    assert len(expected) == 24
    assert_same_tensors(load_tensors(out), expected)


def test_the_latents_of_the_speaker_are_met(speaker: Path) -> None:
    assert not failing(compare_speaker(load(speaker)))


@pytest.mark.parametrize(
    ("variant", "heard", "name"),
    [
        ("speaker", "speech_cond", "output.conditioning_latents"),
        ("emotion", "emo_cond", "output.emo_pooled"),
    ],
)
def test_conformer_and_perceiver_together_give_what_the_language_model_reads(
    variant: str, heard: str, name: str, tmp_path: Path
) -> None:
    encoder, resampler = (
        load_model(
            convert_golden(
                tmp_path / model, "gpt", model, f"golden-gpt-{variant}-dims", variant=[variant]
            )
        )
        for model in ("conformer", "perceiver")
    )
    assert isinstance(encoder, Conformer)
    features, lengths = (LANGUAGE_MODEL[f"input.{heard}{end}"] for end in ("", "_lengths"))
    output = encoder(features, lengths)
    latents = resampler(output.encoded, output.mask).view_as(LANGUAGE_MODEL[name])
    assert not failing(compare({name: latents}, {name: LANGUAGE_MODEL[name]}, TOLERANCE))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_that_fits_every_shape_is_seen(
    mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(compare_perceiver(network, RECORDED))


@pytest.mark.parametrize("mutant", SQUARE)
def test_a_square_weight_that_is_transposed_is_seen(
    mutant: str, speaker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(speaker)
    SQUARE[mutant](network, monkeypatch)
    assert failing(compare_speaker(network))


def test_latents_that_do_not_read_themselves_are_seen(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(directory)
    context_alone(network, monkeypatch)
    got = {"output.latents_row0_nomask": network(CONTEXT[:1])}
    assert failing(compare(got, {name: RECORDED[name] for name in got}, TOLERANCE))


def test_another_epsilon_cannot_be_seen_as_no_vector_is_so_short(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(directory)
    with_epsilon(1e-2)(network, monkeypatch)
    lengths: list[Tensor] = []
    network.final_norm.register_forward_pre_hook(
        lambda _, inputs: lengths.append(inputs[0].norm(dim=-1))
    )
    assert not failing(compare_perceiver(network, RECORDED))
    assert torch.cat([length.flatten() for length in lengths]).min() > 1


def test_all_tensors_reach_the_output(directory: Path) -> None:
    network = load(directory)
    assert not without_effect(network, partial(compare_perceiver, network, RECORDED))


def test_padding_does_not_reach_the_latents(directory: Path) -> None:
    network = load(directory)
    length = int(MASK[1].sum())
    assert length < MASK.shape[1]
    alone = network(CONTEXT[1:, :length])
    torch.testing.assert_close(network(CONTEXT, MASK)[1:], alone)


def test_a_recording_without_frames_leaves_the_latents_to_themselves(directory: Path) -> None:
    latents = load(directory)(CONTEXT, torch.zeros_like(MASK))
    assert latents.isfinite().all()
    torch.testing.assert_close(latents[0], latents[1])


def test_a_vector_of_zeros_stays_one() -> None:
    norm = perceiver.UnitNorm(perceiver.PerceiverConfig(1, 4, 4, 1, 1, 4, 5, norm_eps=1e-12))
    norm.weight.data.fill_(1)
    assert torch.equal(norm(torch.zeros(1, 1, 4)), torch.zeros(1, 1, 4))
    assert norm(torch.tensor([[3.0, 4.0, 0.0, 0.0]])).norm() == 2


@pytest.mark.parametrize("variant", ["speaker", "emotion"])
def test_the_published_sizes_have_the_tensors_of_their_header(variant: str) -> None:
    plan = api.plan(HEADERS / "indextts2-gpt.json", model="perceiver", variant=[variant])
    record, shapes = described("perceiver", [variant])
    assert (plan.used, len(plan.targets)) == (18, 24)
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    with torch.device("meta"):
        network = perceiver.build(record)
    assert {name: tuple(t.shape) for name, t in network.state_dict().items()} == shapes


SIZES = {
    "one layer of one head": {"layers": 1, "heads": 1},
    "no layer": {"layers": 0},
    "equal widths": {"context": 20, "hidden": 20},
    "one latent, a width that no head count divides": {"latents": 1, "hidden": 17, "heads": 5},
    "wide feed-forward network": {"ff_mult": 4, "dim_head": 3},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_sizes_run(size: str, dtype: torch.dtype) -> None:
    dims = {"layers": 2, "hidden": 16, "context": 12, "latents": 3, "heads": 2, "dim_head": 8}
    dims |= SIZES[size]
    network = untrained("perceiver", dims, dtype)
    has_projection = "context_proj.weight" in network.state_dict()
    assert has_projection == (dims["context"] != dims["hidden"])
    for frames in (1, 9):
        context = torch.randn(2, frames, dims["context"], dtype=dtype)
        mask = torch.arange(frames) < torch.tensor([[frames], [1]])
        latents = network(context, mask)
        assert latents.shape == (2, dims["latents"], dims["hidden"])
        assert latents.dtype == dtype
        assert latents.isfinite().all()


@pytest.mark.parametrize(
    ("dims", "because", "what"),
    [
        ({"heads": 0}, "the width of attention", "without heads"),
        ({"dim_head": 0}, "the width of attention", "without dim_head"),
        ({"latents": 0}, "the latents are what comes out", "without latents"),
        ({"ff_mult": 0, "ffn": 0}, "a third of", "without ffn"),
    ],
)
def test_impossible_dims_are_refused(dims: dict[str, int], because: str, what: str) -> None:
    record, _ = described("perceiver")
    with pytest.raises(UsageError, match=what):
        perceiver.build(replace(record, dims={**record.dims, **dims}))
    dims.pop("ffn", None)  # a derived value, which follows from the dims
    with pytest.raises(PlanError, match=because):
        described("perceiver", dims=dims)


@pytest.mark.parametrize(
    ("context", "mask"),
    [(CONTEXT[0], None), (CONTEXT[..., 1:], None), (CONTEXT, MASK[:, 1:]), (CONTEXT, MASK[:1])],
    ids=["no batch", "narrower", "a shorter mask", "fewer rows of the mask"],
)
def test_inputs_of_another_shape_are_refused(
    context: Tensor, mask: Tensor | None, directory: Path
) -> None:
    with pytest.raises(UsageError, match="another shape"):
        load(directory)(context, mask)
