"""The golden Whispers: what their canonical tensors are, by the facts alone, and their parity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from parity import Difference, compare, watching
from reference_weights import Tensors, renamed
from small_whisper import as_openai
from torch import Tensor

from converter.runtime.networks.whisper import Whisper

TOLERANCE = 1e-5

# From the names of openai/whisper, which its model.py gives.
CANONICAL_RENAMES = (
    ("encoder.positional_embedding", "encoder.position_table"),
    ("decoder.positional_embedding", "decoder.position_embedding.weight"),
    (".blocks.", ".layers."),
    ("attn_ln", "attention_norm"),
    ("mlp_ln", "ffn_norm"),
    ("ln_post", "final_norm"),
    ("decoder.ln.", "decoder.final_norm."),
    ("attn.", "attention."),
    ("attention.query", "attention.q_proj"),
    ("attention.key", "attention.k_proj"),
    ("attention.value", "attention.v_proj"),
    ("attention.out", "attention.out_proj"),
    ("mlp.0", "ffn.fc1"),
    ("mlp.2", "ffn.fc2"),
)


def whisper_weights(source: Tensors) -> Tensors:
    """Rename a Whisper of either layout; its head is its token embedding."""
    openai = {as_openai(name): tensor for name, tensor in source.items()}
    weights = renamed(openai, CANONICAL_RENAMES)
    weights["lm_head.weight"] = weights["decoder.token_embedding.weight"]
    return weights


@torch.no_grad()
def compare_whisper(
    network: Whisper, recorded: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> list[Difference]:
    """Compare a Whisper with the golden sets ``whisper`` and ``whisper-openai-layout``."""
    device = network.lm_head.weight.device
    paths = {
        "encoder.layer0.attn.output": "encoder.layers.0.attention",
        "encoder.layer0.output": "encoder.layers.0",
        "decoder.layer0.attn.output": "decoder.layers.0.attention",
        "decoder.layer0.cross_attn.output": "decoder.layers.0.cross_attention",
        "decoder.layer0.output": "decoder.layers.0",
    }
    with watching(network, paths) as got:
        output = network(*(recorded[f"input.{name}"].to(device) for name in ("mels", "tokens")))
    for name in ("encoder_hidden_state", "last_hidden_state", "logits"):
        got[f"output.{name}"] = getattr(output, name)
    return compare(got, recorded, tolerance)
