"""The golden conformer: its canonical tensors by the facts alone, its parity, what breaks it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partialmethod

import pytest
import torch
import torch.nn.functional as F
from mutants import (
    Mutant,
    changed,
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

from converter.runtime.networks import conformer
from converter.runtime.networks.conformer import Conformer

TOLERANCE = 1e-5

RENAMES = (
    ("embed.conv.0", "input_conv"),
    ("embed.out.0", "input_proj"),
    ("embed.pos_enc.pe", "position_table"),
    ("encoders.", "layers."),
    ("self_attn.linear_pos", "attention.pos_proj"),
    ("self_attn.linear_q", "attention.q_proj"),
    ("self_attn.linear_k", "attention.k_proj"),
    ("self_attn.linear_v", "attention.v_proj"),
    ("self_attn.linear_out", "attention.out_proj"),
    ("self_attn.", "attention."),
    ("feed_forward.w_", "ffn.fc"),
    ("conv_module.pointwise_conv1", "conv.in_proj"),
    ("conv_module.depthwise_conv", "conv.depthwise"),
    ("conv_module.pointwise_conv2", "conv.out_proj"),
    ("conv_module.norm", "conv.depthwise_norm"),
    ("norm_mha", "attention_norm"),
    ("norm_conv", "conv_norm"),
    ("norm_ff", "ffn_norm"),
    ("norm_final", "final_norm"),
    ("after_norm", "final_norm"),
)


def conformer_weights(source: Tensors, prefix: str = "") -> Tensors:
    """Rename the conformer whose names start with ``prefix``; its tensors stay as they are."""
    inside = {
        name.removeprefix(prefix): tensor
        for name, tensor in source.items()
        if name.startswith(prefix)
    }
    return renamed(inside, RENAMES)


@torch.no_grad()
def compare_conformer(
    network: Conformer, recorded: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> list[Difference]:
    """Compare a conformer with the golden set ``conformer``, padding included."""
    device = network.position_table.device
    features, lengths = (recorded[f"input.{name}"].to(device) for name in ("features", "lengths"))
    first = network.layers[0]
    paths = {"output": "", "self_attn.output": ".attention", "conv_module.output": ".conv"}
    traces = {f"layer0.{name}": f"layers.0{path}" for name, path in paths.items()}
    with (
        watching(network, traces) as got,
        first.register_forward_pre_hook(lambda _, inputs: got.update({"embed.output": inputs[0]})),
    ):
        output = network(features, lengths)
    got["output.encoded"], got["output.mask"] = output.encoded, output.mask[:, None]
    return compare(got, recorded, tolerance)


def causally_padded(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    depthwise = network.get_submodule("layers.0.conv.depthwise")
    assert isinstance(depthwise, nn.Conv1d)
    middle = depthwise.kernel_size[0] // 2
    depthwise.register_forward_pre_hook(
        lambda _, inputs: F.pad(inputs[0][..., :-middle], (middle, 0))
    )


def paper_attention(
    attention: conformer.SelfAttention,
    x: Tensor,
    positions: Tensor,
    mask: Tensor,
    *,
    shifted: bool = False,
) -> Tensor:
    """Compute attention as the papers write it, with Transformer-XL's shift if it is asked for."""
    q, k, v, p = (
        proj(of).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for proj, of in (
            (attention.q_proj, x),
            (attention.k_proj, x),
            (attention.v_proj, x),
            (attention.pos_proj, positions),
        )
    )
    by_content = (q + attention.pos_bias_u[:, None]) @ k.mT
    by_position = (q + attention.pos_bias_v[:, None]) @ p.mT
    if shifted:
        wider = F.pad(by_position, (1, 0))
        by_position = wider.flatten(2)[..., x.shape[1] :].view_as(by_position)
    scores = (by_content + by_position) / q.shape[-1] ** 0.5
    shares = scores.masked_fill(~mask[:, None, None], -torch.inf).softmax(dim=-1)
    out: Tensor = attention.out_proj((shares @ v).transpose(1, 2).flatten(2))
    return out


def frequency_major(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    weight = network.get_parameter("input_proj.weight")
    channels = len(weight)
    weight.data = weight.reshape(channels, channels, -1).transpose(1, 2).flatten(1)


def rounded_positions(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    table = network.get_buffer("position_table")
    table.copy_(table.bfloat16())


LAYER = "layers.0"
MUTANTS: dict[str, Mutant] = {
    "query and key swapped": swapped(f"{LAYER}.attention.q_proj", f"{LAYER}.attention.k_proj"),
    "value and output swapped": swapped(f"{LAYER}.attention.v_proj", f"{LAYER}.attention.out_proj"),
    "position biases swapped": swapped(
        f"{LAYER}.attention.pos_bias_u", f"{LAYER}.attention.pos_bias_v"
    ),
    "attention and ffn norms swapped": swapped(f"{LAYER}.attention_norm", f"{LAYER}.ffn_norm"),
    "layers swapped": swapped("layers.0.conv", "layers.1.conv"),
    "position projection transposed": transposed(f"{LAYER}.attention.pos_proj.weight"),
    "query transposed": transposed(f"{LAYER}.attention.q_proj.weight"),
    **{
        f"{norm} without weight": ignored(norm)
        for norm in (
            f"{LAYER}.attention_norm",
            f"{LAYER}.conv_norm",
            f"{LAYER}.conv.depthwise_norm",
            f"{LAYER}.ffn_norm",
            f"{LAYER}.final_norm",
            "final_norm",
        )
    },
    "eps 1e-2": with_epsilon(1e-2),
    "gelu for silu": replaced("silu", F.gelu),
    "silu for relu": replaced("relu", F.silu),
    "gate before value": halves_swapped(f"{LAYER}.conv.in_proj"),
    "causal padding": causally_padded,
    "relative shift": patched(
        conformer.SelfAttention, "forward", partialmethod(paper_attention, shifted=True)
    ),
    "frequencies before channels": frequency_major,
    "input not scaled": changed("input_proj", lambda x: x / x.shape[-1] ** 0.5),
    "positions rounded to bfloat16": rounded_positions,
}
