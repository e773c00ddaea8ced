"""The golden GPT-NeoX models: what their tensors are, by the facts alone, and their parity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from parity import Difference, compare, watching
from reference_weights import Tensors, renamed
from torch import Tensor

from converter.runtime.networks.gpt_neox import GPTNeoX

TOLERANCE = 1e-5

RENAMES = (
    ("gpt_neox.", ""),
    ("embed_in", "token_embedding"),
    ("embed_out", "lm_head"),
    ("final_layer_norm", "final_norm"),
    ("input_layernorm", "attention_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("attention.dense", "attention.out_proj"),
    ("mlp.dense_h_to_4h", "ffn.fc1"),
    ("mlp.dense_4h_to_h", "ffn.fc2"),
)
BUFFERS = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")


def gpt_neox_weights(source: Tensors, heads: int) -> Tensors:
    """Rename a GPT-NeoX; its fused rows lie head by head: q, k, v of a head, then of the next."""
    weights: Tensors = {}
    for name, tensor in source.items():
        if name.endswith(BUFFERS):
            continue
        if ".query_key_value." not in name:
            weights[name] = tensor
            continue
        pieces = tensor.chunk(3 * heads)  # 3 per head, by turns
        for place, word in enumerate("qkv"):
            part = torch.cat(pieces[place::3])
            weights[name.replace("query_key_value", f"{word}_proj")] = part
    return renamed(weights, RENAMES)


def _path(name: str) -> str:
    """Return the canonical path of the module whose output is recorded under ``name``."""
    path = name.removesuffix(".output")
    for old, new in (*RENAMES, (".mlp", ".ffn")):
        path = path.replace(old, new)
    return path


@torch.no_grad()
def compare_gpt_neox(
    network: GPTNeoX, recorded: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> list[Difference]:
    """Compare a GPT-NeoX with a recording of ``examples/small_gpt_neox.py``."""
    ids = recorded["input.input_ids"].to(network.token_embedding.weight.device)
    between = [name for name in recorded if name.startswith("gpt_neox.")]
    with watching(network, {name: _path(name) for name in between}) as got:
        got["output.logits"] = network(ids).logits
    return compare(got, recorded, tolerance)
