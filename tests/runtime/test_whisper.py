from __future__ import annotations

from collections.abc import Mapping
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
from golden_whisper import compare_whisper, whisper_weights
from mutants import Mutant, changed, gelu_tanh, ignored, replaced, swapped, transposed, with_epsilon
from parity import Difference
from reference_weights import GOLDEN, golden_checkpoint, golden_tensors
from safetensors.torch import save_file
from small_whisper import as_openai
from torch import Tensor, nn

from converter import api, resources
from converter.dims import read_dims
from converter.errors import PlanError, UsageError, ValueRefusedError
from converter.manifest import Dim
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import whisper
from converter.runtime.networks.whisper import Whisper

RECORDED = golden_tensors("whisper")
MELS, TOKENS = RECORDED["input.mels"], RECORDED["input.tokens"]
# Layout → golden set, and the file of its dims.
LAYOUTS = {
    "hub": ("whisper", "golden-dims"),
    "openai": ("whisper-openai-layout", "golden-openai-dims"),
}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("whisper")
    return {
        layout: convert_golden(root / layout, golden, "whisper", dims, variant=[layout])
        for layout, (golden, dims) in LAYOUTS.items()
    }


@pytest.fixture(scope="module")
def directory(directories: dict[str, Path]) -> Path:
    return directories["hub"]


def load(directory: Path, device: str = "cpu") -> Whisper:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, Whisper)
    return network


def golden_dims(name: str = "golden-dims") -> Mapping[str, Dim]:
    return read_dims(MODELS / "whisper" / f"{name}.yaml", [])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_recorded_output_and_intermediate_is_met(
    layout: str, directories: dict[str, Path]
) -> None:
    differences = compare_whisper(load(directories[layout]), golden_tensors(LAYOUTS[layout][0]))
    assert len(differences) == 8
    assert not failing(differences)


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda(directory: Path) -> None:
    assert not failing(compare_whisper(load(directory, "cuda"), RECORDED, tolerance=1e-4))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_canonical_tensor_is_the_one_that_the_facts_name(
    layout: str, directories: dict[str, Path]
) -> None:
    source = golden_checkpoint(LAYOUTS[layout][0])
    expected = whisper_weights(source)
    layers = {"hub": 2 * 15 + 3 * 24, "openai": 2 * 15 + 2 * 24}
    assert len(expected) == 7 + layers[layout] + 4 + 1
    assert_same_tensors(load_tensors(directories[layout]), expected)


def test_the_same_weights_in_every_layout_make_the_same_bytes(
    directory: Path, tmp_path: Path
) -> None:
    hub = golden_checkpoint("whisper")
    layouts = {
        "openai": {as_openai(name): tensor for name, tensor in hub.items()},
        "bare": {name.removeprefix("model."): tensor for name, tensor in hub.items()},
    }
    expected = (directory / "model.safetensors").read_bytes()
    for layout, tensors in layouts.items():
        source, out = tmp_path / f"{layout}.safetensors", tmp_path / layout
        assert len(tensors) == len(hub)
        assert not hub.keys() & tensors.keys()
        save_file(tensors, source)
        api.convert(source, out, model="whisper", variant=[layout], dims=golden_dims())
        assert (out / "model.safetensors").read_bytes() == expected


def test_a_stored_head_is_dropped_where_it_is_the_embedding_and_else_refused(
    directory: Path, tmp_path: Path
) -> None:
    tensors = golden_checkpoint("whisper")
    head = tensors["model.decoder.embed_tokens.weight"].clone()
    source, out = tmp_path / "with-head.safetensors", tmp_path / "out"
    save_file({**tensors, "proj_out.weight": head}, source)
    api.convert(source, out, model="whisper", dims=golden_dims())
    assert (out / "model.safetensors").read_bytes() == (
        directory / "model.safetensors"
    ).read_bytes()
    head[-1, -1] += 1
    save_file({**tensors, "proj_out.weight": head}, source)
    with pytest.raises(ValueRefusedError, match="not what the rule says it is"):
        api.convert(source, tmp_path / "untied", model="whisper", dims=golden_dims())
    assert not (tmp_path / "untied").exists()


def test_the_head_and_the_embedding_are_one_parameter(directory: Path) -> None:
    network = load(directory)
    assert network.lm_head.weight is network.decoder.token_embedding.weight


def another_attention(**fixed: Any) -> Mutant:
    """Attend with arguments of another value than those that are passed."""

    def mutate(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        attend = F.scaled_dot_product_attention

        def attend_otherwise(q: Tensor, k: Tensor, v: Tensor, **passed: Any) -> Tensor:
            return attend(q, k, v, **{**passed, **fixed})

        monkeypatch.setattr(F, "scaled_dot_product_attention", attend_otherwise)

    return mutate


def causal_encoder(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    for module in network.get_submodule("encoder").modules():
        if isinstance(module, whisper.Attention):
            module.register_forward_pre_hook(_as_causal, with_kwargs=True)


def _as_causal(
    _: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, object]
) -> tuple[tuple[Tensor, ...], dict[str, object]]:
    return inputs, {**named, "is_causal": True}


def cross_before_self(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(layer: whisper.DecoderLayer, x: Tensor, encoded: Tensor) -> Tensor:
        x = x + layer.cross_attention(layer.cross_attention_norm(x), encoded)
        normed = layer.attention_norm(x)
        x = x + layer.attention(normed, normed, is_causal=True)
        out: Tensor = x + layer.ffn(layer.ffn_norm(x))
        return out

    monkeypatch.setattr(whisper.DecoderLayer, "forward", forward)


def without(path: str) -> Mutant:
    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        network.set_submodule(path, nn.Identity())

    return mutate


def rearranged(path: str, dim: int, order: str) -> Mutant:
    """Flip a dim of a tensor, swap its halves, or take its halves as neighbours."""

    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        tensor = dict(network.state_dict())[path]
        half = tensor.shape[dim] // 2
        moved = {
            "flip": lambda: tensor.flip(dim),
            "halves": lambda: tensor.roll(half, dim),
            "neighbours": lambda: tensor.unflatten(dim, (2, half)).transpose(-1, -2).flatten(-2),
            "shift": lambda: tensor.roll(1, dim),
        }[order]()
        tensor.copy_(moved.clone())

    return mutate


def with_heads(part: str, heads: int) -> Mutant:
    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        for module in network.get_submodule(part).modules():
            if isinstance(module, whisper.Attention):
                assert module.heads != heads
                module.heads = heads

    return mutate


def padded_by_the_edge(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    for name in ("conv1", "conv2"):
        conv = network.get_submodule(f"encoder.{name}")
        assert isinstance(conv, nn.Conv1d)
        conv.padding_mode = "replicate"
        conv._reversed_padding_repeated_twice = [1, 1]


def odd_frames_kept(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    conv = network.get_submodule("encoder.conv2")
    conv.register_forward_pre_hook(lambda _module, inputs: inputs[0].roll(1, -1))


ENCODER, DECODER = "encoder.layers.0", "decoder.layers.0"
MUTANTS: dict[str, Mutant] = {
    "query and key swapped": swapped(
        f"{ENCODER}.attention.q_proj.weight", f"{ENCODER}.attention.k_proj.weight"
    ),
    "value and output swapped": swapped(
        f"{ENCODER}.attention.v_proj", f"{ENCODER}.attention.out_proj"
    ),
    "value and output of the cross attention swapped": swapped(
        f"{DECODER}.cross_attention.v_proj", f"{DECODER}.cross_attention.out_proj"
    ),
    "self and cross attention swapped": swapped(
        f"{DECODER}.attention", f"{DECODER}.cross_attention"
    ),
    "their norms swapped": swapped(f"{DECODER}.attention_norm", f"{DECODER}.cross_attention_norm"),
    "norms of cross attention and network swapped": swapped(
        f"{DECODER}.cross_attention_norm", f"{DECODER}.ffn_norm"
    ),
    "norms of an encoder layer swapped": swapped(
        f"{ENCODER}.attention_norm", f"{ENCODER}.ffn_norm"
    ),
    "final norms swapped": swapped("encoder.final_norm", "decoder.final_norm"),
    "layers of the encoder swapped": swapped(ENCODER, "encoder.layers.1"),
    "layers of the decoder swapped": swapped("decoder.layers.1", "decoder.layers.2"),
    "query transposed": transposed(f"{ENCODER}.attention.q_proj.weight"),
    "key of the cross attention transposed": transposed(f"{DECODER}.cross_attention.k_proj.weight"),
    **{
        f"{norm} without weight": ignored(norm)
        for norm in (
            f"{ENCODER}.attention_norm",
            f"{ENCODER}.ffn_norm",
            "encoder.final_norm",
            f"{DECODER}.attention_norm",
            f"{DECODER}.cross_attention_norm",
            f"{DECODER}.ffn_norm",
            "decoder.final_norm",
        )
    },
    "final norm of the encoder skipped": without("encoder.final_norm"),
    "final norm of the decoder skipped": without("decoder.final_norm"),
    "eps 1e-2": with_epsilon(1e-2),
    "gelu by tanh": replaced("gelu", gelu_tanh),
    "relu for gelu": replaced("gelu", F.relu),
    "decoder not causal": another_attention(is_causal=False),
    "encoder causal": causal_encoder,
    "scores not scaled": another_attention(scale=1.0),
    "scores scaled by the whole width": another_attention(scale=24**-0.5),
    "other heads in the encoder": with_heads("encoder", 3),
    "other heads in the decoder": with_heads("decoder", 4),
    "cross attention first": cross_before_self,
    "first kernel flipped": rearranged("encoder.conv1.weight", -1, "flip"),
    "second kernel flipped": rearranged("encoder.conv2.weight", -1, "flip"),
    "channels of the second convolution shifted": rearranged("encoder.conv2.weight", 0, "shift"),
    "convolutions padded by the edge": padded_by_the_edge,
    "the other half of the frames kept": odd_frames_kept,
    "cosines before sines": rearranged("encoder.position_table", -1, "halves"),
    "sines and cosines as neighbours": rearranged("encoder.position_table", -1, "neighbours"),
    "positions of the decoder from 1": rearranged("decoder.position_embedding.weight", 0, "shift"),
    "embedding times the root of the width": changed(
        "decoder.token_embedding", lambda x: x * 24**0.5
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_that_fits_every_shape_is_seen(
    mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(compare_whisper(network, RECORDED))


def test_every_tensor_reaches_an_output(directory: Path) -> None:
    network = load(directory)
    dead = set()
    for name, tensor in network.state_dict().items():
        original = tensor.clone()
        tensor.mul_(1.3)
        if not failing(compare_whisper(network, RECORDED)):
            dead.add(name)
        tensor.copy_(original)
    assert not dead


# Words of the layout of openai/whisper, exchanged in the rule file as a hasty author might.
SWAPS = {
    "values for outputs": ("value: value", "out: out", "value: out", "out: value"),
    "cross attention for self attention": (
        "attention: attn",
        "cross: cross_attn",
        "attention: cross_attn",
        "cross: attn",
    ),
    "their norms": (
        "attention_norm: attn_ln",
        "ffn_norm: mlp_ln",
        "attention_norm: mlp_ln",
        "ffn_norm: attn_ln",
    ),
    "queries for keys": ("query: query", "key: key", "query: key", "key: query"),
    "the first layer for the second": ("fc1: mlp.0", "fc2: mlp.2", "fc1: mlp.2", "fc2: mlp.0"),
}
# The encoder has no cross attention and keys have no bias, which the plan sees.
REFUSED = {
    "cross attention for self attention",
    "queries for keys",
    "the first layer for the second",
}


@pytest.mark.parametrize("swap", SWAPS)
def test_words_exchanged_in_the_rule_file_are_refused_or_seen(swap: str, tmp_path: Path) -> None:
    text = resources.rule_file("whisper").read_text("utf-8")
    first, second, one, other = (f"        {line}\n" for line in SWAPS[swap])
    assert text.count(first) == text.count(second) == 1
    rules, out = tmp_path / "whisper.yaml", tmp_path / "out"
    rules.write_text(text.replace(first, "@").replace(second, other).replace("@", one), "utf-8")
    golden, dims = LAYOUTS["openai"]

    def converted() -> list[Difference]:
        api.convert(
            GOLDEN / golden / "checkpoint.safetensors",
            out,
            rules=rules,
            variant=["openai"],
            dims=golden_dims(dims),
        )
        return compare_whisper(load(out), golden_tensors(golden))

    if swap in REFUSED:
        with pytest.raises(PlanError):
            converted()
    else:
        assert failing(converted())


def test_what_follows_does_not_reach_what_came_before(directory: Path) -> None:
    network = load(directory)
    torch.testing.assert_close(
        network(MELS, TOKENS[:, :4]).logits, network(MELS, TOKENS).logits[:, :4]
    )


def test_what_was_encoded_once_is_decoded_as_if_anew(directory: Path) -> None:
    network = load(directory)
    encoded = network.encoder(MELS)
    assert network.decode(TOKENS, encoded).logits.equal(network(MELS, TOKENS).logits)


SIZE = {
    "encoder_layers": 2,
    "decoder_layers": 1,
    "hidden": 12,
    "encoder_heads": 3,
    "decoder_heads": 2,
    "encoder_ffn": 14,
    "decoder_ffn": 10,
    "mels": 5,
    "encoder_positions": 7,
    "decoder_positions": 6,
    "vocab": 60,
}
SIZES = {
    "one head": {"encoder_heads": 1, "decoder_heads": 1},
    "no layer": {"encoder_layers": 0, "decoder_layers": 0},
    "heads of odd width": {"hidden": 15, "encoder_heads": 3, "decoder_heads": 5},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_sizes_run(size: str, dtype: torch.dtype) -> None:
    dims = {**SIZE, **SIZES[size]}
    network = untrained("whisper", dims, dtype)
    mels = MELS[:, :5].repeat(1, 1, 2)[..., :14].to(dtype)
    for tokens in (1, 6):
        output = network(mels, TOKENS[:, :tokens])
        assert output.encoder_hidden_state.shape == (2, 7, dims["hidden"])
        assert output.last_hidden_state.shape == (2, tokens, dims["hidden"])
        assert output.logits.shape == (2, tokens, 60)
        assert output.encoder_hidden_state.dtype == output.logits.dtype == dtype
        assert output.logits.isfinite().all()


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("heads", [0, 5])
def test_impossible_dims_are_refused(part: str, heads: int) -> None:
    with pytest.raises(PlanError, match=f"heads of the {part} are equal slices of hidden"):
        described("whisper", dims={f"{part}_heads": heads})
    with pytest.raises(UsageError, match=f"hidden 384 does not make {heads} equal heads"):
        whisper.Attention(hidden=384, heads=heads)


@pytest.mark.parametrize(
    "mels",
    [MELS[0], MELS[:, 1:], MELS[..., :-2], MELS.transpose(1, 2)],
    ids=["no batch", "other mels", "a short recording", "transposed"],
)
def test_spectrograms_of_another_shape_are_refused(mels: Tensor, directory: Path) -> None:
    with pytest.raises(UsageError, match="mels have another shape") as caught:
        load(directory)(mels, TOKENS)
    assert caught.value.findings[0].expected == "[B, 8, 20]"


@pytest.mark.parametrize(
    ("tokens", "what"),
    [
        (TOKENS[0], "tokens have another shape"),
        (TOKENS.repeat(1, 2), "tokens have another shape"),
        (TOKENS[:1], "that of other recordings"),
    ],
    ids=["no batch", "more tokens than positions", "fewer sequences than recordings"],
)
def test_tokens_of_another_shape_are_refused(tokens: Tensor, what: str, directory: Path) -> None:
    with pytest.raises(UsageError, match=what):
        load(directory)(MELS, tokens)
