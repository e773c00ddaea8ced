"""The golden GPT-2s: what their canonical tensors are, by the facts alone, and their parity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from parity import Difference, compare, watching
from reference_weights import Tensors, renamed
from torch import Tensor

from converter.runtime.networks.gpt2 import GPT2

TOLERANCE = 1e-5

TRUNK_RENAMES = (
    ("h.", "layers."),
    ("ln_1", "attention_norm"),
    ("ln_2", "ffn_norm"),
    ("attn.c_proj", "attention.out_proj"),
    ("attn.", "attention."),
    ("mlp.c_fc", "ffn.fc1"),
    ("mlp.c_proj", "ffn.fc2"),
)
RENAMES = (
    *TRUNK_RENAMES,
    ("wte", "token_embedding"),
    ("wpe", "position_embedding"),
    ("ln_f", "final_norm"),
)


def trunk_linears(source: Tensors) -> Tensors:
    """Turn every Conv1D, which is [in, out], and take ``c_attn`` apart: q, then k, then v."""
    linears: Tensors = {}
    for name, tensor in source.items():
        if ".c_attn." in name:
            for word, third in zip(("q", "k", "v"), tensor.t().chunk(3), strict=True):
                linears[name.replace("c_attn", f"{word}_proj")] = third
        else:
            turned = ".c_proj." in name or ".c_fc." in name
            linears[name] = tensor.t() if turned else tensor
    return linears


def gpt2_weights(source: Tensors) -> Tensors:
    """Rename a GPT-2 with or without prefix, whose masks, if it has any, are left out."""
    inside = {
        name.removeprefix("transformer."): tensor
        for name, tensor in source.items()
        if not name.endswith(".attn.bias")
    }
    weights = renamed(trunk_linears(inside), RENAMES)
    weights["lm_head.weight"] = weights["token_embedding.weight"]
    return weights


@torch.no_grad()
def compare_gpt2(
    network: GPT2, recorded: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> list[Difference]:
    """Compare a GPT-2 with the golden sets ``gpt2`` and ``gpt2-hub-layout``."""
    ids = recorded["input.input_ids"].to(network.token_embedding.weight.device)
    paths = {"layer0.attn.output": "layers.0.attention", "layer0.output": "layers.0"}
    with watching(network, paths) as got:
        output = network(ids)
    got["output.last_hidden_state"] = output.last_hidden_state
    got["output.logits"] = output.logits
    return compare(got, recorded, tolerance)
