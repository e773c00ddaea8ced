"""Wav2Vec2-BERT: a speech encoder of macaron conformer layers, without an adapter.

Source: facebook/w2v-bert-2.0 (Seamless, arXiv:2312.05187), as ``modeling_wav2vec2_bert.py`` of
transformers 4.52.1 computes it: conformer (arXiv:2005.08100) with causal convolutions and relative
positions (arXiv:1803.02155). IndexTTS2 reads the output of layer 16, so it needs 17 layers.

Shapes: B recordings, T frames, I inputs, D hidden, H heads, R distances. Activations have the
weights' dtype.
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
    "attention": ("bidirectional",),
    "position_embedding": ("relative_key",),
    "relative_distance": ("key_minus_query",),
    "norm": ("layer_norm",),
    "norm_position": ("pre",),
    "norm_eps": float,
    "activation": ("silu",),
    "ffn_scale": float,
    "glu": ("value_gate",),
    "conv_padding": ("causal",),
}


@dataclass(frozen=True, slots=True)
class Wav2VecBertConfig:
    """Dims, and the numbers among the conventions; ``used_layers`` is the depth."""

    used_layers: int
    hidden: int
    heads: int
    ffn: int
    input: int
    left_positions: int
    right_positions: int
    conv_kernel: int
    norm_eps: float
    ffn_scale: float

    def __post_init__(self) -> None:
        if self.heads == 0 or self.hidden % self.heads:
            raise UsageError(f"hidden {self.hidden} does not make {self.heads} equal heads")
        if self.conv_kernel == 0:
            raise UsageError("a convolution sees at least one frame", got="conv_kernel: 0")


def build(model: ModelRecord) -> nn.Module:
    """Build the encoder that a manifest describes; its weights are not initialised for use."""
    return Wav2VecBert(read_config(Wav2VecBertConfig, model))


class Wav2VecBert(nn.Module):
    """The encoder: a projection of the features, then the layers. No norm follows the last."""

    def __init__(self, config: Wav2VecBertConfig) -> None:
        super().__init__()
        self.config = config
        self.input_norm = nn.LayerNorm(config.input, config.norm_eps)
        self.input_proj = nn.Linear(config.input, config.hidden)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.used_layers))

    def forward(self, features: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Encode ``features`` [B, T, I], stacked log-mel frames → [B, T, D].

        ``attention_mask`` [B, T] is zero at padding, which nobody attends to; None attends to
        all. Layer i returns what the original calls hidden state i + 1.
        """
        self._check(features, attention_mask)
        if attention_mask is None:
            attention_mask = features.new_ones(features.shape[:2])
        attended = attention_mask != 0  # [B, T]
        rows = distance_rows(features.shape[1], self.config, features.device)
        x = self.input_proj(self.input_norm(features))  # [B, T, D]
        x = x.masked_fill(~attended[..., None], 0)
        for layer in self.layers:
            x = layer(x, rows, attended)
        out: Tensor = x
        return out

    def _check(self, features: Tensor, attention_mask: Tensor | None) -> None:
        if features.ndim != 3 or features.shape[-1] != self.config.input:
            raise UsageError(
                "features have another shape",
                expected=f"[B, T, {self.config.input}]",
                got=str(list(features.shape)),
            )
        if attention_mask is not None and attention_mask.shape != features.shape[:2]:
            raise UsageError(
                "attention_mask has another shape",
                expected=str(list(features.shape[:2])),
                got=str(list(attention_mask.shape)),
            )


class Layer(nn.Module):
    """Half a feed-forward step, attention, convolution, another half step, and a norm."""

    def __init__(self, config: Wav2VecBertConfig) -> None:
        super().__init__()
        self.ffn_scale = config.ffn_scale
        self.ffn1_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.ffn1 = FeedForward(config)
        self.attention_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.attention = SelfAttention(config)
        self.conv_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.conv = Convolution(config)
        self.ffn2_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.ffn2 = FeedForward(config)
        self.final_norm = nn.LayerNorm(config.hidden, config.norm_eps)

    def forward(self, x: Tensor, rows: Tensor, attended: Tensor) -> Tensor:
        """``x`` [B, T, D]; ``rows`` of ``distance_rows``; ``attended`` [B, T] → [B, T, D]."""
        x = x + self.ffn_scale * self.ffn1(self.ffn1_norm(x))
        x = x + self.attention(self.attention_norm(x), rows, attended)
        x = x + self.conv(self.conv_norm(x), attended)
        x = x + self.ffn_scale * self.ffn2(self.ffn2_norm(x))
        out: Tensor = self.final_norm(x)
        return out


class FeedForward(nn.Module):
    """Two layers around a SiLU."""

    def __init__(self, config: Wav2VecBertConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden, config.ffn)
        self.fc2 = nn.Linear(config.ffn, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, T, D]."""
        out: Tensor = self.fc2(F.silu(self.fc1(x)))
        return out


class SelfAttention(nn.Module):
    """Multi-head attention with scores (q · k + q · distance) / sqrt(D/H).

    The table of distances belongs to the layer and is shared by its heads.
    """

    def __init__(self, config: Wav2VecBertConfig) -> None:
        super().__init__()
        hidden, head = config.hidden, config.hidden // config.heads
        self.heads = config.heads
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden)
        self.v_proj = nn.Linear(hidden, hidden)
        self.out_proj = nn.Linear(hidden, hidden)
        distances = config.left_positions + 1 + config.right_positions
        self.distance_embedding = nn.Embedding(distances, head)

    def forward(self, x: Tensor, rows: Tensor, attended: Tensor) -> Tensor:
        """``x`` [B, T, D]; ``rows`` [T, T] of the table; ``attended`` [B, T] → [B, T, D]."""
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, D/H]
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        scale = q.shape[-1] ** -0.5
        # Against the whole table, then gathered: no vector per pair of frames is ever made.
        by_distance = scale * q @ self.distance_embedding.weight.T  # [B, H, T, R]
        bias = by_distance.gather(-1, rows.expand(*q.shape[:3], -1))  # [B, H, T, T]
        bias = bias.masked_fill(~attended[:, None, None], torch.finfo(bias.dtype).min)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Convolution(nn.Module):
    """A gated projection, a depthwise convolution that sees no later frame, a projection."""

    def __init__(self, config: Wav2VecBertConfig) -> None:
        super().__init__()
        hidden, kernel = config.hidden, config.conv_kernel
        self.past_frames = kernel - 1
        self.in_proj = nn.Conv1d(hidden, 2 * hidden, kernel_size=1, bias=False)
        self.depthwise = nn.Conv1d(hidden, hidden, kernel, groups=hidden, bias=False)
        self.depthwise_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.out_proj = nn.Conv1d(hidden, hidden, kernel_size=1, bias=False)

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        """``x`` [B, T, D], ``attended`` [B, T] → [B, T, D]."""
        x = x.masked_fill(~attended[..., None], 0)
        x = F.glu(self.in_proj(x.mT), dim=1)  # [B, D, T]: first half · sigmoid(second half)
        x = self.depthwise(F.pad(x, (self.past_frames, 0)))
        x = F.silu(self.depthwise_norm(x.mT))  # [B, T, D]
        out: Tensor = self.out_proj(x.mT).mT
        return out


def distance_rows(frames: int, config: Wav2VecBertConfig, device: torch.device) -> Tensor:
    """Return the row of the distance table for every query i and key j, [T, T], int64.

    It is the distance j - i, clamped to what the table knows, counted from its leftmost row.
    """
    positions = torch.arange(frames, device=device)
    distances = positions - positions[:, None]  # [query, key]
    left, right = config.left_positions, config.right_positions
    return distances.clamp(-left, right) + left
