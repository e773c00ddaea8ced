"""The golden Soprano LM: what its canonical tensors are, by the facts alone, and its parity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from parity import Difference, compare, watching
from reference_weights import Tensors, renamed
from torch import Tensor

from converter.runtime.networks.soprano_lm import SopranoLM

TOLERANCE = 1e-5

RENAMES = (
    ("model.embed_tokens", "token_embedding"),
    ("model.norm", "final_norm"),
    ("model.layers.", "layers."),
    ("input_layernorm", "attention_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.o_proj", "attention.out_proj"),
    ("self_attn.", "attention."),
    ("mlp.", "ffn."),
)


def soprano_lm_weights(source: Tensors) -> Tensors:
    """Rename a Qwen3; its tensors stay as they are."""
    return renamed(source, RENAMES)


@torch.no_grad()
def compare_soprano_lm(
    network: SopranoLM, recorded: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> list[Difference]:
    """Compare a Soprano LM with the golden set ``soprano-lm``."""
    ids = recorded["input.input_ids"].to(network.lm_head.weight.device)
    paths = {"layer0.self_attn.output": "layers.0.attention", "layer0.output": "layers.0"}
    with watching(network, paths) as got:
        output = network(ids)
    got["output.last_hidden_state"] = output.last_hidden_state
    got["output.logits"] = output.logits
    return compare(got, recorded, tolerance)
