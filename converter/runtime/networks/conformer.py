"""The conformer that encodes a recording for IndexTTS2's GPT, as speaker or as emotion.

Source: index-tts ee40fa7, ``conditioning_encoder`` and ``emo_conditioning_encoder`` of gpt.pth;
built from the conformer (arXiv:2005.08100), with the relative positions of Transformer-XL
(arXiv:1901.02860) but without their shift.

Shapes: B recordings, S frames, T = (S - 1) // 2 frames encoded, I inputs, D hidden, H heads.
Activations have the weights' dtype.
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
    "position_embedding": ("relative_sinusoidal",),
    "norm": ("layer_norm",),
    "norm_position": ("pre",),
    "norm_eps": float,
    "activation": ("silu",),
    "frontend_activation": ("relu",),
    "flatten": ("channel_major",),
    "input_scale": ("sqrt_hidden",),
    "glu": ("value_gate",),
    "conv_padding": ("zeros",),
}


@dataclass(frozen=True, slots=True)
class ConformerConfig:
    """Dims, and the one number among the conventions."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    input: int
    conv_kernel: int
    positions: int
    norm_eps: float

    def __post_init__(self) -> None:
        if self.heads == 0 or self.hidden % self.heads:
            raise UsageError(f"hidden {self.hidden} does not make {self.heads} equal heads")
        if self.input < 3:
            raise UsageError(f"input {self.input} is narrower than the 3 features of a convolution")
        if self.conv_kernel % 2 == 0:
            raise UsageError(f"conv_kernel {self.conv_kernel} has no middle, so no equal padding")


@dataclass(frozen=True, slots=True)
class ConformerOutput:
    """What the encoder gives.

    ``encoded`` [B, T, D]; ``mask`` [B, T], boolean, is false at frames of padding, where
    ``encoded`` means nothing.
    """

    encoded: Tensor
    mask: Tensor


def build(model: ModelRecord) -> nn.Module:
    """Build the encoder that a manifest describes; its weights are not initialised for use."""
    return Conformer(read_config(ConformerConfig, model))


class Conformer(nn.Module):
    """The encoder: a convolution that halves the frame rate, then the layers and a norm."""

    position_table: Tensor

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.config = config
        self.input_conv = nn.Conv2d(1, hidden, kernel_size=3, stride=2)
        self.input_proj = nn.Linear(hidden * ((config.input - 1) // 2), hidden)
        # Stored, never computed: published tables were rounded, and their models run with those.
        self.register_buffer("position_table", torch.empty(1, config.positions, hidden))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(hidden, config.norm_eps)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> ConformerOutput:
        """Encode ``features`` [B, S, I], standardised Wav2Vec2-BERT frames, at least three.

        ``lengths`` [B] counts the frames of each recording, the others being padding; None counts
        all. (IndexTTS2 itself passes the width I here, which masks nothing up to I frames.)
        """
        self._check(features, lengths)
        frames = features.shape[1]
        x = self._embed(features)  # [B, T, D]
        positions = self.position_table[:, : x.shape[1]].to(x.dtype)  # [1, T, D]
        if lengths is None:
            lengths = torch.full(features.shape[:1], frames, device=features.device)
        mask = torch.arange(frames, device=features.device) < lengths[:, None]  # [B, S]
        mask = mask[:, 2::2]  # [B, T]: an encoded frame is valid if the last it was made from is
        for layer in self.layers:
            x = layer(x, positions, mask)
        return ConformerOutput(encoded=self.final_norm(x), mask=mask)

    def _embed(self, features: Tensor) -> Tensor:
        x = F.relu(self.input_conv(features[:, None]))  # [B, D, T, (I - 1) // 2]
        x = self.input_proj(x.transpose(1, 2).flatten(2))  # columns of one channel lie together
        out: Tensor = x * self.config.hidden**0.5
        return out

    def _check(self, features: Tensor, lengths: Tensor | None) -> None:
        width, most = self.config.input, 2 * self.config.positions + 2
        if features.ndim != 3 or features.shape[2] != width or not 3 <= features.shape[1] <= most:
            raise UsageError(
                "features have another shape",
                expected=f"[B, S, {width}], S from 3 to {most}",
                got=str(list(features.shape)),
            )
        if lengths is not None and lengths.shape != features.shape[:1]:
            raise UsageError(
                "lengths have another shape",
                expected=str(list(features.shape[:1])),
                got=str(list(lengths.shape)),
            )


class Layer(nn.Module):
    """Attention, convolution and a feed-forward network, each after a norm; then a norm."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.attention = SelfAttention(config)
        self.conv_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.conv = Convolution(config)
        self.ffn_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.ffn = FeedForward(config)
        self.final_norm = nn.LayerNorm(config.hidden, config.norm_eps)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """``x`` [B, T, D]; ``positions`` [1, T, D]; ``mask`` [B, T] → [B, T, D]."""
        x = x + self.attention(self.attention_norm(x), positions, mask)
        x = x + self.conv(self.conv_norm(x), mask)
        x = x + self.ffn(self.ffn_norm(x))
        out: Tensor = self.final_norm(x)
        return out


class SelfAttention(nn.Module):
    """Multi-head attention with scores ((q + u) · k + (q + v) · p) / sqrt(D/H).

    p is projected from the sinusoid of the key's own position, whatever the query's: the original
    has no relative shift.
    """

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        hidden, heads = config.hidden, config.heads
        self.heads = heads
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden)
        self.v_proj = nn.Linear(hidden, hidden)
        self.out_proj = nn.Linear(hidden, hidden)
        self.pos_proj = nn.Linear(hidden, hidden, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, hidden // heads))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, hidden // heads))

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """``x`` [B, T, D]; ``positions`` [1, T, D]; ``mask`` [B, T] → [B, T, D]."""
        q, k, v, p = (
            projected.unflatten(-1, (self.heads, -1))  # [B, T, H, D/H], p with B = 1
            for projected in (
                self.q_proj(x),
                self.k_proj(x),
                self.v_proj(x),
                self.pos_proj(positions),
            )
        )
        # Two dot products that are added are one of twice the width.
        queries = torch.cat([q + self.pos_bias_u, q + self.pos_bias_v], dim=-1)
        keys = torch.cat([k, p.expand_as(k)], dim=-1)
        mixed = F.scaled_dot_product_attention(
            queries.transpose(1, 2),
            keys.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask[:, None, None],
            scale=q.shape[-1] ** -0.5,
        )
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Convolution(nn.Module):
    """A gated projection, a depthwise convolution of both sides, a projection.

    Padding is silenced before the gate, whose bias makes it audible again: to the depthwise
    convolution it is not what lies beyond the ends. So the same recording is encoded a little
    otherwise in a batch than alone, here as in the original.
    """

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        hidden, kernel = config.hidden, config.conv_kernel
        self.in_proj = nn.Conv1d(hidden, 2 * hidden, kernel_size=1)
        self.depthwise = nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        self.depthwise_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.out_proj = nn.Conv1d(hidden, hidden, kernel_size=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x`` [B, T, D], ``mask`` [B, T] → [B, T, D], zero at padding."""
        padding = ~mask[..., None]  # [B, T, 1]
        x = F.glu(self.in_proj(x.masked_fill(padding, 0).mT), dim=1)  # first · sigmoid(second)
        x = F.silu(self.depthwise_norm(self.depthwise(x).mT))  # [B, T, D]
        out: Tensor = self.out_proj(x.mT).mT
        return out.masked_fill(padding, 0)


class FeedForward(nn.Module):
    """Two layers around a SiLU."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden, config.ffn)
        self.fc2 = nn.Linear(config.ffn, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, T, D]."""
        out: Tensor = self.fc2(F.silu(self.fc1(x)))
        return out
