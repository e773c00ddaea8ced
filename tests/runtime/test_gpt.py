from __future__ import annotations

from dataclasses import replace
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
from golden_gpt import CONDITIONING, TOLERANCE, compare_gpt, gpt_outputs, gpt_weights
from mutants import Mutant, ignored, swapped, transposed, with_epsilon
from parity import compare
from reference_weights import HEADERS, golden_checkpoint, golden_tensors
from torch import Tensor, nn

from converter import api
from converter.errors import PlanError, UsageError
from converter.manifest import Dim
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import gpt
from converter.runtime.networks.gpt import GPT, decode_greedily, merge_emotion

RECORDED = golden_tensors("gpt")
LATENTS, EMOTION, TEXT, CODES = (
    RECORDED[name]
    for name in (
        "output.conditioning_latents",
        "output.emo_vec",
        "input.text_ids",
        "input.mel_codes",
    )
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_golden(tmp_path_factory.mktemp("gpt") / "out", "gpt", "gpt")


def load(directory: Path, device: str = "cpu") -> GPT:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, GPT)
    return network


def test_every_recorded_output_and_intermediate_is_met(directory: Path) -> None:
    differences = compare_gpt(load(directory), RECORDED)
    assert len(differences) == 10
    assert not failing(differences)


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda(directory: Path) -> None:
    assert not failing(compare_gpt(load(directory, "cuda"), RECORDED, tolerance=1e-4))


def test_every_canonical_tensor_is_the_one_that_the_facts_name(directory: Path) -> None:
    expected = gpt_weights(golden_checkpoint("gpt"))
    assert len(expected) == 2 * 16 + 17
    assert_same_tensors(load_tensors(directory), expected)


def test_from_features_to_mel_logits_through_the_four_encoders(
    directory: Path, tmp_path: Path
) -> None:
    def encoder(model: str, voice: str) -> nn.Module:
        out = tmp_path / f"{model}-{voice}"
        convert_golden(out, "gpt", model, f"golden-gpt-{voice}-dims", variant=[voice])
        return load_model(out)

    def hear(voice: str, recording: str) -> tuple[Tensor, Tensor]:
        """Return what is encoded of a recording, and the latents that have read it."""
        features = RECORDED[f"input.{recording}"], RECORDED[f"input.{recording}_lengths"]
        heard = encoders["conformer", voice](*features)
        return heard.encoded, encoders["perceiver", voice](heard.encoded, heard.mask)

    encoders = {
        (model, voice): encoder(model, voice)
        for model in ("conformer", "perceiver")
        for voice in ("speaker", "emotion")
    }
    network = load(directory)
    encoded, latents = hear("speaker", "speech_cond")
    own, other = (hear("emotion", name)[1][:, 0] for name in ("speech_cond", "emo_cond"))
    got = gpt_outputs(network, RECORDED, latents, other) | {
        "output.conditioning_encoder": encoded,
        "output.conditioning_latents": latents,
        "output.emo_pooled": other,
    }
    own, other = network.emotion_vector(own), network.emotion_vector(other)
    got["output.emo_vec_merged_alpha0.6"] = merge_emotion(own, other, 0.6)
    assert got.keys() > set(CONDITIONING)
    assert not failing(compare(got, RECORDED, TOLERANCE))


def speeds_swapped(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    weight = network.get_parameter("speed_embedding.weight")
    weight.data = weight.data.flip(0)


def skipped(norm: str) -> Mutant:
    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        network.set_submodule(norm, nn.Identity())

    return mutate


def exact_gelu(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    gelu = F.gelu
    monkeypatch.setattr(F, "gelu", lambda x, approximate: gelu(x))


def positions_of_decoding(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = GPT.forward
    monkeypatch.setattr(GPT, "forward", lambda *inputs: forward(*inputs, decoding=True))


ATTENTION = "layers.0.attention"
MUTANTS: dict[str, Mutant] = {
    "query and key swapped": swapped(f"{ATTENTION}.q_proj", f"{ATTENTION}.k_proj"),
    "value and output swapped": swapped(f"{ATTENTION}.v_proj", f"{ATTENTION}.out_proj"),
    "output not transposed": transposed(f"{ATTENTION}.out_proj.weight"),
    "value not transposed": transposed(f"{ATTENTION}.v_proj.weight"),
    "emotion transposed": transposed("emotion_out_proj.weight"),
    "norms of a layer swapped": swapped("layers.0.attention_norm", "layers.0.ffn_norm"),
    "last norms swapped": swapped("trunk_norm", "final_norm"),
    **{
        f"{norm} without weight": ignored(norm)
        for norm in ("layers.0.attention_norm", "layers.1.ffn_norm", "trunk_norm", "final_norm")
    },
    **{f"{norm} skipped": skipped(norm) for norm in ("trunk_norm", "final_norm")},
    "speeds swapped": speeds_swapped,
    "mel positions as in decoding": positions_of_decoding,
    "eps 1e-2": with_epsilon(1e-2),
    "exact gelu": exact_gelu,
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_that_fits_every_shape_is_seen(
    mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(compare_gpt(network, RECORDED))


def test_all_tensors_but_the_key_biases_reach_an_output(directory: Path) -> None:
    # A bias on the keys adds the same to all scores of a query, which softmax takes away.
    network = load(directory)
    dead = set()
    for name, tensor in network.state_dict().items():
        original = tensor.clone()
        tensor.mul_(1.3)
        if not failing(compare_gpt(network, RECORDED)):
            dead.add(name)
        tensor.copy_(original)
    assert dead == {f"layers.{i}.attention.k_proj.bias" for i in range(2)}


def test_emotions_are_merged_in_proportion() -> None:
    base, emotion = torch.randn(2, 5), torch.randn(2, 5)
    torch.testing.assert_close(merge_emotion(base, emotion, 0), base)
    torch.testing.assert_close(merge_emotion(base, emotion, 1), emotion)
    torch.testing.assert_close(merge_emotion(base, emotion, 0.6), 0.4 * base + 0.6 * emotion)


def test_decoding_skips_row_1_of_the_mel_positions_and_nothing_else(directory: Path) -> None:
    network = load(directory)
    got = network(LATENTS, EMOTION, TEXT, CODES, decoding=True).mel_logits
    table = network.mel_position_embedding.weight
    table.data = torch.cat([table[:1], table[2:], table[1:2]])
    assert torch.equal(got, network(LATENTS, EMOTION, TEXT, CODES).mel_logits)


def test_greedy_decoding_takes_the_likeliest_code_up_to_the_stop_or_the_limit(
    directory: Path,
) -> None:
    network = load(directory)
    codes = decode_greedily(network, LATENTS, EMOTION, TEXT, limit=6)
    logits = network(LATENTS, EMOTION, TEXT, codes, decoding=True).mel_logits
    assert codes.shape == (1, 6)
    assert torch.equal(codes, logits[:, :6].argmax(dim=-1))
    network.mel_head.bias[network.config.stop_mel] = 1e3
    assert decode_greedily(network, LATENTS, EMOTION, TEXT, limit=6).shape == (1, 0)


def test_the_published_size_has_the_tensors_of_its_header() -> None:
    plan = api.plan(HEADERS / "indextts2-gpt.json", model="gpt")
    record, shapes = described("gpt")
    assert (plan.used, len(plan.targets)) == (305, 24 * 16 + 17)
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    with torch.device("meta"):
        network = gpt.build(record)
    assert {name: tuple(held.shape) for name, held in network.named_parameters()} == shapes


SIZES = {
    "one layer of one head": {"layers": 1, "heads": 1},
    "no layer": {"layers": 0},
    "heads of odd width": {"layers": 3, "hidden": 21, "heads": 3},
    "more speeds": {"speeds": 5, "semantic": 1},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_sizes_run(size: str, dtype: torch.dtype) -> None:
    dims = {"layers": 2, "hidden": 16, "heads": 2, "semantic": 6}
    dims |= {"text_tokens": 20, "text_positions": 9, "mel_codes": 30, "mel_positions": 12}
    dims |= {"start_mel": 28, "stop_mel": 29}
    dims |= SIZES[size]
    hidden = dims["hidden"]
    network = untrained("gpt", dims, dtype)
    assert isinstance(network, GPT)
    emotion = network.emotion_vector(torch.randn(2, dims["semantic"], dtype=dtype))
    for latents, texts, codes in ((0, 1, 0), (4, 7, 10)):
        output = network(
            torch.randn(2, latents, hidden, dtype=dtype),
            emotion,
            torch.randint(20, (2, texts)),
            torch.randint(28, (2, codes)),
        )
        assert output.inputs.shape == (2, latents + 2 + texts + 2 + codes + 2, hidden)
        assert output.text_logits.shape == (2, texts + 2, 20)
        assert output.mel_logits.shape == (2, codes + 2, 30)
        assert output.mel_latent.shape == (2, codes, hidden)
        assert output.mel_logits.dtype == output.mel_latent.dtype == dtype
        assert output.mel_logits.isfinite().all()


@pytest.mark.parametrize(
    ("dims", "because", "what"),
    [
        ({"heads": 0}, "heads are equal slices of hidden", "does not make 0 equal heads"),
        ({"heads": 7}, "heads are equal slices of hidden", "does not make 7 equal heads"),
        ({"speeds": 1}, "rows 1 and 0 of the speed embedding", "rows 1 and 0 of the speed"),
        ({"stop_text": 12001}, "tokens of text are rows of its embedding", "no row of its"),
        ({"start_mel": 8194}, "tokens of mel are rows of its embedding", "no row of its"),
    ],
)
def test_impossible_dims_are_refused(dims: dict[str, Dim], because: str, what: str) -> None:
    with pytest.raises(PlanError, match=because):
        described("gpt", dims=dims)
    record, _ = described("gpt")
    with pytest.raises(UsageError, match=what):
        gpt.build(replace(record, dims={**record.dims, **dims}))


@pytest.mark.parametrize(
    ("inputs", "what"),
    [
        ((LATENTS[0], EMOTION, TEXT, CODES), "latents have another shape"),
        ((LATENTS[..., 1:], EMOTION, TEXT, CODES), "latents have another shape"),
        ((LATENTS, EMOTION.repeat(2, 1), TEXT, CODES), "emotion has another shape"),
        ((LATENTS, EMOTION, TEXT[0], CODES), "text_ids have another shape"),
        ((LATENTS, EMOTION, TEXT, CODES.repeat(2, 1)), "mel_codes have another shape"),
        ((LATENTS, EMOTION, TEXT.repeat(1, 4), CODES), "text_ids are too many"),
        ((LATENTS, EMOTION, TEXT, CODES.repeat(1, 4)), "mel_codes are too many"),
    ],
)
def test_inputs_of_another_shape_are_refused(
    inputs: tuple[Tensor, ...], what: str, directory: Path
) -> None:
    with pytest.raises(UsageError, match=what):
        load(directory)(*inputs)


def test_decoding_has_one_position_less(directory: Path) -> None:
    network, codes = load(directory), torch.zeros(1, 31, dtype=torch.int64)
    assert network(LATENTS, EMOTION, TEXT, codes).mel_latent.shape[1] == 31
    with pytest.raises(UsageError, match="mel_codes are too many"):
        network(LATENTS, EMOTION, TEXT, codes, decoding=True)
