"""GPT: the text-to-semantic language model of IndexTTS2, which turns text into mel codes.

Source: index-tts ee40fa7, ``UnifiedVoice`` without its four conditioning encoders, which are
models of their own; the trunk is that of ``gpt2``. One sequence holds a prefix (who speaks, and
how), the text, and the mel codes. Text and codes each stand between a start and a stop token, and
each have positions of their own, from 0.

Shapes: B rows, L latents, T text tokens, M mel codes, D hidden, E width of a pooled emotion. The
whole sequence is S = (L + 2) + (T + 2) + (M + 2) long. Activations have the weights' dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from converter.errors import UsageError
from converter.manifest import ModelRecord
from converter.runtime.networks.config import read_config
from converter.runtime.networks.gpt2 import Layer

CONVENTIONS: Mapping[str, object] = {
    "attention": ("causal",),
    "position_embedding": ("learned",),
    "position_start": ("per_segment",),
    "prefix_order": ("latents_speed1_speed0",),
    "norm": ("layer_norm",),
    "norm_position": ("pre",),
    "norm_eps": float,
    "activation": ("gelu_tanh",),
}


@dataclass(frozen=True, slots=True)
class GPTConfig:
    """Dims, four of them tokens, and the one number among the conventions."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    text_tokens: int
    text_positions: int
    mel_codes: int
    mel_positions: int
    semantic: int
    speeds: int
    start_text: int
    stop_text: int
    start_mel: int
    stop_mel: int
    norm_eps: float

    def __post_init__(self) -> None:
        if self.speeds < 2:
            raise UsageError("the prefix holds rows 1 and 0 of the speed embedding")
        if (
            max(self.start_text, self.stop_text) >= self.text_tokens
            or max(self.start_mel, self.stop_mel) >= self.mel_codes
        ):
            raise UsageError("a start or stop token is no row of its embedding")


@dataclass(frozen=True, slots=True)
class GPTOutput:
    """What one pass gives.

    ``prefix`` [B, L + 2, D] and ``inputs`` [B, S, D] are what the trunk reads; ``text_ids``
    [B, T + 2] and ``mel_codes`` [B, M + 2] have their start and stop tokens. The logits of a
    position, [B, T + 2, text tokens] and [B, M + 2, mel codes], are those of what follows it.
    ``mel_latent`` [B, M, D] is what S2Mel reads: one vector per code, from where it is predicted.
    """

    prefix: Tensor
    inputs: Tensor
    text_ids: Tensor
    mel_codes: Tensor
    text_logits: Tensor
    mel_logits: Tensor
    mel_latent: Tensor


def build(model: ModelRecord) -> nn.Module:
    """Build the model that a manifest describes; its weights are not initialised for use."""
    return GPT(read_config(GPTConfig, model))


def merge_emotion(base: Tensor, emotion: Tensor, alpha: float) -> Tensor:
    """Go from the emotion ``base`` [B, D] towards ``emotion`` [B, D]; ``alpha`` 1 arrives there."""
    return base + alpha * (emotion - base)


@torch.no_grad()
def decode_greedily(
    network: GPT, latents: Tensor, emotion: Tensor, text_ids: Tensor, limit: int
) -> Tensor:
    """Return the likeliest mel codes [1, M], M at most ``limit``, without start and stop.

    Inputs are those of ``GPT.forward``, of one row. All is computed anew for every code: this
    shows what decoding means, not how to do it fast.
    """
    codes = text_ids[:, :0]
    while codes.shape[1] < limit:
        logits = network(latents, emotion, text_ids, codes, decoding=True).mel_logits
        likeliest = logits[:, -2].argmax(dim=-1, keepdim=True)  # [1, 1], after the last code
        if likeliest.item() == network.config.stop_mel:
            break
        codes = torch.cat([codes, likeliest], dim=1)
    return codes


class GPT(nn.Module):
    """Embeddings of emotion, speed, text and mel, a GPT-2 trunk, two norms, and two heads."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.config = config
        self.emotion_in_proj = nn.Linear(config.semantic, hidden)
        self.emotion_out_proj = nn.Linear(hidden, hidden)
        self.speed_embedding = nn.Embedding(config.speeds, hidden)
        self.text_embedding = nn.Embedding(config.text_tokens, hidden)
        self.text_position_embedding = nn.Embedding(config.text_positions, hidden)
        self.mel_embedding = nn.Embedding(config.mel_codes, hidden)
        self.mel_position_embedding = nn.Embedding(config.mel_positions, hidden)
        self.layers = nn.ModuleList(
            Layer(hidden, config.heads, config.ffn, config.norm_eps) for _ in range(config.layers)
        )
        self.trunk_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.final_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.text_head = nn.Linear(hidden, config.text_tokens)
        self.mel_head = nn.Linear(hidden, config.mel_codes)

    def forward(
        self,
        latents: Tensor,
        emotion: Tensor,
        text_ids: Tensor,
        mel_codes: Tensor,
        *,
        decoding: bool = False,
    ) -> GPTOutput:
        """Predict every next token of rows whose mel codes are known.

        ``latents`` [B, L, D] are the perceiver's, ``emotion`` [B, D] is of ``emotion_vector`` or
        ``merge_emotion``; ``text_ids`` [B, T] and ``mel_codes`` [B, M] come without start and
        stop. The original skips row 1 of the mel positions when it decodes code by code, and
        nowhere else: ``decoding`` does the same.
        """
        self._check(latents, emotion, text_ids, mel_codes, decoding=decoding)
        config = self.config
        text_ids = _enclosed(text_ids, config.start_text, config.stop_text)  # [B, T + 2]
        mel_codes = _enclosed(mel_codes, config.start_mel, config.stop_mel)  # [B, M + 2]
        text_at = torch.arange(text_ids.shape[1], device=text_ids.device)
        mel_at = torch.arange(mel_codes.shape[1], device=mel_codes.device)
        if decoding:
            mel_at = mel_at + (mel_at > 0)

        prefix = self._prefix(latents, emotion)
        text = self.text_embedding(text_ids) + self.text_position_embedding(text_at)
        mel = self.mel_embedding(mel_codes) + self.mel_position_embedding(mel_at)
        inputs = torch.cat([prefix, text, mel], dim=1)  # [B, S, D]

        x = inputs
        for layer in self.layers:
            x = layer(x)
        # The trunk ends with a norm of its own, and a second one follows.
        x = self.final_norm(self.trunk_norm(x))
        _, text, mel = x.split([prefix.shape[1], text.shape[1], mel.shape[1]], dim=1)
        return GPTOutput(
            prefix=prefix,
            inputs=inputs,
            text_ids=text_ids,
            mel_codes=mel_codes,
            text_logits=self.text_head(text),
            mel_logits=self.mel_head(mel),
            mel_latent=mel[:, :-2],
        )

    def emotion_vector(self, pooled: Tensor) -> Tensor:
        """``pooled`` [B, E], the emotion perceiver's one latent → [B, D]."""
        out: Tensor = self.emotion_out_proj(self.emotion_in_proj(pooled))
        return out

    def _prefix(self, latents: Tensor, emotion: Tensor) -> Tensor:
        """Return the latents, each moved by the emotion, then the speeds, row 1 before row 0."""
        speeds = self.speed_embedding.weight[:2].flip(0).expand(len(latents), -1, -1)  # [B, 2, D]
        return torch.cat([latents + emotion[:, None], speeds], dim=1)

    def _check(
        self,
        latents: Tensor,
        emotion: Tensor,
        text_ids: Tensor,
        mel_codes: Tensor,
        *,
        decoding: bool,
    ) -> None:
        rows, config = len(latents), self.config
        for name, tensor, shape in (
            ("latents have", latents, (rows, None, config.hidden)),
            ("emotion has", emotion, (rows, config.hidden)),
            ("text_ids have", text_ids, (rows, None)),
            ("mel_codes have", mel_codes, (rows, None)),
        ):
            sizes = list(tensor.shape)
            if len(sizes) != len(shape) or any(
                size not in (None, got) for size, got in zip(shape, sizes, strict=True)
            ):
                expected = ", ".join("any" if size is None else str(size) for size in shape)
                raise UsageError(f"{name} another shape", expected=f"[{expected}]", got=str(sizes))
        for name, ids, most in (
            ("text_ids", text_ids, config.text_positions - 2),
            ("mel_codes", mel_codes, config.mel_positions - 2 - decoding),
        ):
            if ids.shape[1] > most:
                raise UsageError(
                    f"{name} are too many for the positions of the model",
                    expected=f"at most {most} and their start and stop",
                    got=str(ids.shape[1]),
                )


def _enclosed(ids: Tensor, start: int, stop: int) -> Tensor:
    """``ids`` [B, N] → [B, N + 2], between ``start`` and ``stop``."""
    return F.pad(F.pad(ids, (1, 0), value=start), (0, 1), value=stop)
