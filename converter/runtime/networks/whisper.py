"""Whisper: an encoder of log-mel spectrograms, and a decoder that reads it and writes text.

Source: Radford et al. 2022 (arXiv:2212.04356), as ``modeling_whisper.py`` of transformers 5.23.0
and ``model.py`` of openai/whisper 20250625 compute it. Pre-norm: every sublayer sees a normalised
input, and its result is added to the input as it was. Keys have no bias.

Shapes: B recordings, M mels, F frames (twice the positions of the encoder), S = F/2 positions of
the encoder, T tokens, D hidden, H heads, V vocab. Activations have the weights' dtype.
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

CONVENTIONS: Mapping[str, object] = {
    "encoder_attention": ("bidirectional",),
    "decoder_attention": ("causal",),
    "decoder_order": ("self_cross_ffn",),
    "attention_scale": ("sqrt_head_dim",),
    "encoder_position_embedding": ("sinusoidal",),
    "decoder_position_embedding": ("learned",),
    "norm": ("layer_norm",),
    "norm_position": ("pre",),
    "norm_eps": float,
    "activation": ("gelu_erf",),
    "conv_padding": ("zeros",),
}


@dataclass(frozen=True, slots=True)
class WhisperConfig:
    """Dims, and the one number among the conventions."""

    encoder_layers: int
    decoder_layers: int
    hidden: int
    encoder_heads: int
    decoder_heads: int
    encoder_ffn: int
    decoder_ffn: int
    mels: int
    encoder_positions: int
    decoder_positions: int
    vocab: int
    norm_eps: float


@dataclass(frozen=True, slots=True)
class WhisperOutput:
    """What the model gives.

    ``encoder_hidden_state`` [B, S, D] and ``last_hidden_state`` [B, T, D] come after the final
    norms of encoder and decoder; ``logits`` [B, T, V] are those of the token that follows.
    """

    encoder_hidden_state: Tensor
    last_hidden_state: Tensor
    logits: Tensor


def build(model: ModelRecord) -> nn.Module:
    """Build the model that a manifest describes; its weights are not initialised for use."""
    return Whisper(read_config(WhisperConfig, model))


class Whisper(nn.Module):
    """Encoder, decoder, and the head that is tied to the decoder's token embedding."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.lm_head = nn.Linear(config.hidden, config.vocab, bias=False)
        self.lm_head.weight = self.decoder.token_embedding.weight

    def forward(self, mels: Tensor, tokens: Tensor) -> WhisperOutput:
        """Read ``mels`` [B, M, F], and ``tokens`` [B, T], integers below V.

        Padding of tokens, if any, stands at the end. To decode step by step, encode once:
        ``network.encoder(mels)``, then ``network.decode(tokens, encoded)``.
        """
        return self.decode(tokens, self.encoder(mels))

    def decode(self, tokens: Tensor, encoded: Tensor) -> WhisperOutput:
        """Read ``tokens`` [B, T] beside what the encoder gave, ``encoded`` [B, S, D]."""
        x = self.decoder(tokens, encoded)
        return WhisperOutput(
            encoder_hidden_state=encoded, last_hidden_state=x, logits=self.lm_head(x)
        )


class Encoder(nn.Module):
    """Two convolutions, of which the second halves the frames, then layers and a norm."""

    position_table: Tensor

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        hidden, heads, ffn = config.hidden, config.encoder_heads, config.encoder_ffn
        self.shape = (config.mels, 2 * config.encoder_positions)
        self.conv1 = nn.Conv1d(config.mels, hidden, 3, padding=1)
        self.conv2 = nn.Conv1d(hidden, hidden, 3, stride=2, padding=1)
        self.register_buffer("position_table", torch.empty(config.encoder_positions, hidden))
        self.layers = nn.ModuleList(
            EncoderLayer(hidden, heads, ffn, config.norm_eps) for _ in range(config.encoder_layers)
        )
        self.final_norm = nn.LayerNorm(hidden, config.norm_eps)

    def forward(self, mels: Tensor) -> Tensor:
        """``mels`` [B, M, F] → [B, S, D]."""
        if mels.ndim != 3 or tuple(mels.shape[1:]) != self.shape:
            raise UsageError(
                "mels have another shape",
                expected=f"[B, {self.shape[0]}, {self.shape[1]}]",
                got=str(list(mels.shape)),
                hint="cut or fill each recording to the clip_samples of the manifest first",
            )
        x = F.gelu(self.conv1(mels))  # [B, D, F]
        x = F.gelu(self.conv2(x)).transpose(1, 2)  # [B, S, D]
        x = x + self.position_table.to(x.dtype)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.final_norm(x)
        return out


class Decoder(nn.Module):
    """Embeddings, layers that also read the encoder, and a norm."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        hidden, heads, ffn = config.hidden, config.decoder_heads, config.decoder_ffn
        self.token_embedding = nn.Embedding(config.vocab, hidden)
        self.position_embedding = nn.Embedding(config.decoder_positions, hidden)
        self.layers = nn.ModuleList(
            DecoderLayer(hidden, heads, ffn, config.norm_eps) for _ in range(config.decoder_layers)
        )
        self.final_norm = nn.LayerNorm(hidden, config.norm_eps)

    def forward(self, tokens: Tensor, encoded: Tensor) -> Tensor:
        """``tokens`` [B, T], ``encoded`` [B, S, D] → [B, T, D]."""
        self._check(tokens, encoded)
        position_ids = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(position_ids)  # [B, T, D]
        for layer in self.layers:
            x = layer(x, encoded)
        out: Tensor = self.final_norm(x)
        return out

    def _check(self, tokens: Tensor, encoded: Tensor) -> None:
        positions = self.position_embedding.num_embeddings
        if tokens.ndim != 2 or tokens.shape[1] > positions:
            raise UsageError(
                "tokens have another shape",
                expected=f"[B, T], T at most {positions}",
                got=str(list(tokens.shape)),
            )
        if encoded.ndim != 3 or len(encoded) != len(tokens):
            raise UsageError(
                "the encoder's output is that of other recordings",
                expected=f"[{len(tokens)}, S, D], as there are {len(tokens)} rows of tokens",
                got=str(list(encoded.shape)),
            )


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network; each normalises, then adds."""

    def __init__(self, hidden: int, heads: int, ffn: int, norm_eps: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden, norm_eps)
        self.attention = Attention(hidden, heads)
        self.ffn_norm = nn.LayerNorm(hidden, norm_eps)
        self.ffn = FeedForward(hidden, ffn)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, S, D] → [B, S, D]."""
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed)
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, then a feed-forward network."""

    def __init__(self, hidden: int, heads: int, ffn: int, norm_eps: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden, norm_eps)
        self.attention = Attention(hidden, heads)
        self.cross_attention_norm = nn.LayerNorm(hidden, norm_eps)
        self.cross_attention = Attention(hidden, heads)
        self.ffn_norm = nn.LayerNorm(hidden, norm_eps)
        self.ffn = FeedForward(hidden, ffn)

    def forward(self, x: Tensor, encoded: Tensor) -> Tensor:
        """``x`` [B, T, D], ``encoded`` [B, S, D], which has its norm → [B, T, D]."""
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, is_causal=True)
        x = x + self.cross_attention(self.cross_attention_norm(x), encoded)
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


class Attention(nn.Module):
    """Multi-head attention of one sequence to another, or to itself, scaled by 1/sqrt(D/H)."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        if heads == 0 or hidden % heads:
            raise UsageError(f"hidden {hidden} does not make {heads} equal heads")
        self.heads = heads
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden, bias=False)
        self.v_proj = nn.Linear(hidden, hidden)
        self.out_proj = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, read: Tensor, *, is_causal: bool = False) -> Tensor:
        """``x`` [B, T, D] attends to ``read`` [B, S, D] → [B, T, D]."""
        q, k, v = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T or S, D/H]
            for projected in (self.q_proj(x), self.k_proj(read), self.v_proj(read))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two layers around the exact (erf) GELU."""

    def __init__(self, hidden: int, ffn: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden, ffn)
        self.fc2 = nn.Linear(ffn, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, T, D]."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out
