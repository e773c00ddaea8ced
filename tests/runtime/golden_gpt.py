"""The golden GPT: what its canonical tensors are, by the facts alone, and its parity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from golden_gpt2 import TRUNK_RENAMES, trunk_linears
from parity import Difference, compare, watching
from reference_weights import Tensors, renamed
from torch import Tensor

from converter.runtime.networks.gpt import GPT

TOLERANCE = 1e-5

ENCODERS = (
    "conditioning_encoder.",
    "perceiver_encoder.",
    "emo_conditioning_encoder.",
    "emo_perceiver_encoder.",
)
# What other models computed, between the features and the prefix.
CONDITIONING = (
    "output.conditioning_encoder",
    "output.conditioning_latents",
    "output.emo_pooled",
    "output.emo_vec_merged_alpha0.6",
)
RENAMES = (
    ("gpt.ln_f", "trunk_norm"),
    ("gpt.", ""),
    *TRUNK_RENAMES,
    ("emovec_layer", "emotion_in_proj"),
    ("emo_layer", "emotion_out_proj"),
    ("speed_emb.", "speed_embedding."),
    ("pos_embedding.emb.", "position_embedding."),
)


def gpt_weights(source: Tensors) -> Tensors:
    """Rename UnifiedVoice, less its four encoders."""
    inside = {name: tensor for name, tensor in source.items() if not name.startswith(ENCODERS)}
    return renamed(trunk_linears(inside), RENAMES)


@torch.no_grad()
def gpt_outputs(
    network: GPT, recorded: Mapping[str, Tensor], latents: Tensor, pooled: Tensor
) -> Tensors:
    """Compute what was recorded behind the encoders.

    ``latents`` [1, L, D] are the speaker perceiver's, ``pooled`` [1, E] is the emotion's.
    """
    device = network.mel_head.weight.device
    text_ids, mel_codes, latents, pooled = (
        tensor.to(device)
        for tensor in (recorded["input.text_ids"], recorded["input.mel_codes"], latents, pooled)
    )
    paths = {"gpt.layer0.output": "layers.0", "gpt.last_hidden_state": "trunk_norm"}
    emotion = network.emotion_vector(pooled)
    with watching(network, paths) as got:
        output = network(latents, emotion, text_ids, mel_codes)
    return got | {
        "output.emo_vec": emotion,
        "output.conds": output.prefix,
        "output.gpt_input_embeds": output.inputs,
        "output.text_input_ids": output.text_ids,
        "output.mel_input_ids": output.mel_codes,
        "output.text_logits": output.text_logits,
        "output.mel_logits": output.mel_logits,
        "output.mel_latent": output.mel_latent,
    }


def compare_gpt(
    network: GPT, recorded: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> list[Difference]:
    """Compare a GPT with the golden set ``gpt``, its conditioning being the recorded one."""
    latents, pooled = recorded["output.conditioning_latents"], recorded["output.emo_pooled"]
    got = gpt_outputs(network, recorded, latents, pooled)
    kept = {name: tensor for name, tensor in recorded.items() if name not in CONDITIONING}
    return compare(got, kept, tolerance)
