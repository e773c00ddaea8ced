"""The golden Wav2Vec2-BERT: its tensors by the facts alone, its parity, what breaks it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from mutants import (
    Mutant,
    halves_swapped,
    ignored,
    patched,
    replaced,
    swapped,
    transposed,
    with_epsilon,
)
from parity import Difference, compare, watching
from reference_weights import Tensors, renamed
from torch import Tensor, nn

from converter.runtime.networks import wav2vec_bert
from converter.runtime.networks.wav2vec_bert import (
    Layer,
    Wav2VecBert,
    Wav2VecBertConfig,
    distance_rows,
)

TOLERANCE = 1e-5

RENAMES = (
    ("feature_projection.layer_norm", "input_norm"),
    ("feature_projection.projection", "input_proj"),
    ("encoder.layers.", "layers."),
    ("intermediate_dense", "fc1"),
    ("output_dense", "fc2"),
    ("self_attn_layer_norm", "attention_norm"),
    ("self_attn.linear_q", "attention.q_proj"),
    ("self_attn.linear_k", "attention.k_proj"),
    ("self_attn.linear_v", "attention.v_proj"),
    ("self_attn.linear_out", "attention.out_proj"),
    ("self_attn.", "attention."),
    ("conv_module.depthwise_layer_norm", "conv.depthwise_norm"),
    ("conv_module.layer_norm", "conv_norm"),
    ("conv_module.pointwise_conv1", "conv.in_proj"),
    ("conv_module.depthwise_conv", "conv.depthwise"),
    ("conv_module.pointwise_conv2", "conv.out_proj"),
    ("_layer_norm", "_norm"),
)


def wav2vec_bert_weights(source: Tensors, layers: int) -> Tensors:
    """Rename the first ``layers`` layers; the mask of training is left out."""
    kept = {
        name: tensor
        for name, tensor in source.items()
        if not name.startswith("encoder.layers.") or int(name.split(".")[2]) < layers
    }
    del kept["masked_spec_embed"]
    return renamed(kept, RENAMES)


@torch.no_grad()
def compare_wav2vec_bert(
    network: Wav2VecBert, recorded: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> list[Difference]:
    """Compare with every hidden state of the golden set that a network so deep has.

    All positions count: the original silences padding the same way wherever it could be heard.
    """
    device, depth = network.input_proj.weight.device, len(network.layers)
    features, mask = (
        recorded[f"input.{name}"].to(device) for name in ("input_features", "attention_mask")
    )
    paths = {f"hidden_states.{i + 1}": f"layers.{i}" for i in range(depth)}
    with (
        watching(network, paths) as got,
        network.layers[0].register_forward_pre_hook(
            lambda _, inputs: got.update({"hidden_states.0": inputs[0]})
        ),
    ):
        output = network(features, mask)
    got["output.hidden_state_17"] = output if depth == 17 else got["hidden_states.17"]
    if depth == 18:
        got["output.last_hidden_state"] = output
    return compare(got, {name: recorded[name] for name in got}, tolerance)


def padded_on_both_sides(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    depthwise = network.get_submodule("layers.0.conv.depthwise")
    assert isinstance(depthwise, nn.Conv1d)
    middle = depthwise.kernel_size[0] // 2
    depthwise.register_forward_pre_hook(
        lambda _, inputs: F.pad(inputs[0][..., middle:], (0, middle))
    )


def query_minus_key(frames: int, config: Wav2VecBertConfig, device: torch.device) -> Tensor:
    return distance_rows(frames, config, device).T


def distances_unscaled(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    table = network.get_parameter("layers.0.attention.distance_embedding.weight")
    table.data *= table.shape[1] ** 0.5


def whole_steps(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    for module in network.modules():
        if isinstance(module, Layer):
            module.ffn_scale = 1.0


def audible_padding(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    for layer in network.get_submodule("layers").children():
        layer.get_submodule("conv").register_forward_pre_hook(
            lambda _, inputs: (inputs[0], torch.ones_like(inputs[1]))
        )


LAYER = "layers.0"
ATTENTION = f"{LAYER}.attention"
MUTANTS: dict[str, Mutant] = {
    "query and key swapped": swapped(f"{ATTENTION}.q_proj", f"{ATTENTION}.k_proj"),
    "value and output swapped": swapped(f"{ATTENTION}.v_proj", f"{ATTENTION}.out_proj"),
    "feed-forward networks swapped": swapped(f"{LAYER}.ffn1", f"{LAYER}.ffn2"),
    "distances of another layer": swapped(
        f"{ATTENTION}.distance_embedding", "layers.1.attention.distance_embedding"
    ),
    "key transposed": transposed(f"{ATTENTION}.k_proj.weight"),
    **{
        f"{norm} without weight": ignored(norm)
        for norm in (
            "input_norm",
            f"{LAYER}.ffn1_norm",
            f"{LAYER}.attention_norm",
            f"{LAYER}.conv_norm",
            f"{LAYER}.conv.depthwise_norm",
            f"{LAYER}.ffn2_norm",
            f"{LAYER}.final_norm",
        )
    },
    "eps 1e-2": with_epsilon(1e-2),
    "gelu for silu": replaced("silu", F.gelu),
    "gate before value": halves_swapped(f"{LAYER}.conv.in_proj"),
    "padding on both sides": padded_on_both_sides,
    "query minus key": patched(wav2vec_bert, "distance_rows", query_minus_key),
    "distances not scaled": distances_unscaled,
    "whole feed-forward steps": whole_steps,
    "padding heard by convolutions": audible_padding,
}
