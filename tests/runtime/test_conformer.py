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
from golden_conformer import (
    MUTANTS,
    TOLERANCE,
    compare_conformer,
    conformer_weights,
    paper_attention,
)
from parity import compare
from reference_weights import HEADERS, golden_checkpoint, golden_tensors
from torch import Tensor

from converter import api
from converter.errors import PlanError, UsageError
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import conformer
from converter.runtime.networks.conformer import Conformer

RECORDED = golden_tensors("conformer")
FEATURES, LENGTHS = RECORDED["input.features"], RECORDED["input.lengths"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("conformer") / "out"
    return convert_golden(out, "conformer", "conformer", scope="")


def load(directory: Path, device: str = "cpu") -> Conformer:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, Conformer)
    return network


def test_every_recorded_output_and_intermediate_is_met(directory: Path) -> None:
    differences = compare_conformer(load(directory), RECORDED)
    assert len(differences) == 6
    assert not failing(differences)


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda(directory: Path) -> None:
    network = load(directory, "cuda")
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert not failing(compare_conformer(network, RECORDED, tolerance=1e-4))


def test_every_canonical_tensor_is_the_one_that_the_facts_name(directory: Path) -> None:
    expected = conformer_weights(golden_checkpoint("conformer"))
    assert len(expected) == 2 * 31 + 7
    assert_same_tensors(load_tensors(directory), expected)


@pytest.mark.parametrize(
    ("variant", "prefix", "count"),
    [("speaker", "conditioning_encoder.", 69), ("emotion", "emo_conditioning_encoder.", 38)],
)
def test_both_encoders_of_the_language_model_convert(
    variant: str, prefix: str, count: int, tmp_path: Path
) -> None:
    out = tmp_path / variant
    convert_golden(out, "gpt", "conformer", f"golden-gpt-{variant}-dims", variant=[variant])
    expected = conformer_weights(golden_checkpoint("gpt"), prefix)
    assert len(expected) == count
    assert_same_tensors(load_tensors(out), expected)


def test_the_speaker_encoder_of_the_language_model_gives_what_it_gave(tmp_path: Path) -> None:
    network = load(convert_golden(tmp_path / "out", "gpt", "conformer", "golden-gpt-speaker-dims"))
    recorded = golden_tensors("gpt")
    got = network(recorded["input.speech_cond"], recorded["input.speech_cond_lengths"]).encoded
    name = "output.conditioning_encoder"
    assert not failing(compare({name: got}, {name: recorded[name]}, TOLERANCE))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_that_fits_every_shape_is_seen(
    mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(compare_conformer(network, RECORDED))


def test_attention_is_what_the_papers_write_without_the_shift(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformer.SelfAttention, "forward", paper_attention)
    assert not failing(compare_conformer(load(directory), RECORDED))


def test_all_tensors_but_the_key_biases_reach_the_output(directory: Path) -> None:
    # A bias on the keys adds the same to all scores of a query, which softmax takes away.
    network = load(directory)
    dead = without_effect(network, partial(compare_conformer, network, RECORDED))
    assert dead == {f"layers.{i}.attention.k_proj.bias" for i in range(2)}


def test_what_padding_holds_reaches_no_frame_of_a_recording(directory: Path) -> None:
    network = load(directory)
    changed = FEATURES.clone()
    changed[1, LENGTHS[1] :] = 100 * torch.randn(FEATURES.shape[1] - int(LENGTHS[1]), 20)
    padded, same = network(FEATURES, LENGTHS), network(changed, LENGTHS)
    assert not padded.mask.all()
    torch.testing.assert_close(padded.encoded[padded.mask], same.encoded[padded.mask])


def test_that_there_is_padding_does_reach_them_as_in_the_original(directory: Path) -> None:
    network = load(directory)
    frames, length = int(network(FEATURES, LENGTHS).mask[1].sum()), int(LENGTHS[1])
    padded, alone = network(FEATURES, LENGTHS), network(FEATURES[1:, :length])
    difference = (padded.encoded[1, :frames] - alone.encoded[0]).abs().max()
    assert difference > 0.01


def test_absent_lengths_count_all_frames(directory: Path) -> None:
    network = load(directory)
    without, counted = network(FEATURES), network(FEATURES, torch.full((2,), FEATURES.shape[1]))
    assert without.mask.all()
    torch.testing.assert_close(without.encoded, counted.encoded)


def test_a_recording_without_frames_does_not_disturb_the_others(directory: Path) -> None:
    network = load(directory)
    output = network(FEATURES, torch.tensor([FEATURES.shape[1], 0]))
    assert output.mask.sum(dim=1).tolist() == [14, 0]
    assert output.encoded.isfinite().all()
    torch.testing.assert_close(output.encoded[0], network(FEATURES).encoded[0])


@pytest.mark.parametrize(("variant", "count"), [("speaker", 193), ("emotion", 131)])
def test_the_published_sizes_have_the_tensors_of_their_header(variant: str, count: int) -> None:
    plan = api.plan(HEADERS / "indextts2-gpt.json", model="conformer", variant=[variant])
    record, shapes = described("conformer", [variant])
    assert plan.used == len(plan.targets) == count
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    with torch.device("meta"):
        network = conformer.build(record)
    held = dict(network.named_parameters()) | dict(network.named_buffers())
    assert {name: tuple(tensor.shape) for name, tensor in held.items()} == shapes


SIZES = {
    "one layer of one head": {"layers": 1, "heads": 1},
    "no layer": {"layers": 0},
    "wider": {"layers": 3, "hidden": 30, "heads": 6, "ffn": 7},
    "narrow input": {"input": 3},
    "odd input and kernel of one": {"input": 8, "conv_kernel": 1},
    "kernel of many frames": {"conv_kernel": 31, "positions": 20},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_sizes_run(size: str, dtype: torch.dtype) -> None:
    dims = {"layers": 2, "hidden": 16, "heads": 2, "ffn": 24, "input": 11, "positions": 50}
    dims |= SIZES[size]
    network = untrained("conformer", dims, dtype)
    for frames in (3, 4, 29):
        features = torch.randn(2, frames, dims["input"], dtype=dtype)
        output = network(features, torch.tensor([frames, 3]))
        assert output.encoded.shape == (2, (frames - 1) // 2, dims["hidden"])
        assert output.encoded.dtype == dtype
        assert output.encoded.isfinite().all()
        assert output.mask.sum(dim=1).tolist() == [(frames - 1) // 2, 1]


@pytest.mark.parametrize(
    ("dims", "because", "what"),
    [
        ({"heads": 5}, "heads are equal slices of hidden", "does not make 5 equal heads"),
        ({"heads": 0}, "heads are equal slices of hidden", "does not make 0 equal heads"),
        ({"input": 2}, "sees three features at a time", "input 2 is narrower"),
        ({"conv_kernel": 4}, "equal padding on both sides", "conv_kernel 4 has no middle"),
        ({"conv_kernel": 0}, "equal padding on both sides", "conv_kernel 0 has no middle"),
    ],
)
def test_impossible_dims_are_refused(dims: dict[str, int], because: str, what: str) -> None:
    with pytest.raises(PlanError, match=because):
        described("conformer", dims=dims)
    record, _ = described("conformer")
    with pytest.raises(UsageError, match=what):
        conformer.build(replace(record, dims={**record.dims, **dims}))


@pytest.mark.parametrize(
    ("features", "lengths"),
    [
        (FEATURES[0], None),
        (FEATURES[..., 1:], None),
        (FEATURES[:, :2], None),
        (FEATURES.repeat(1, 350, 1), None),
        (FEATURES, LENGTHS[:1]),
    ],
    ids=["no batch", "narrower", "too short", "longer than the table", "a length missing"],
)
def test_inputs_of_another_shape_are_refused(
    features: Tensor, lengths: Tensor | None, directory: Path
) -> None:
    with pytest.raises(UsageError, match="another shape"):
        load(directory)(features, lengths)
