"""The perceiver that resamples an encoded recording to a fixed number of latents for IndexTTS2.

Source: index-tts ee40fa7, ``perceiver_encoder`` and ``emo_perceiver_encoder`` of gpt.pth; built
from the perceiver (arXiv:2103.03206), Flamingo's resampler (arXiv:2204.14198) and GEGLU
(arXiv:2002.05202).

Shapes: B recordings, T context frames, C context width, N latents, D hidden, H heads, E dim_head.
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
    "key_order": ("latents_context",),
    "norm": ("rms_norm_l2",),
    "norm_position": ("final",),
    "norm_eps": float,
    "activation": ("gelu_erf",),
}


@dataclass(frozen=True, slots=True)
class PerceiverConfig:
    """Dims, and the one number among the conventions."""

    layers: int
    hidden: int
    context: int
    latents: int
    heads: int
    dim_head: int
    ffn: int
    norm_eps: float

    def __post_init__(self) -> None:
        for name in ("latents", "heads", "dim_head", "ffn"):
            if getattr(self, name) == 0:
                raise UsageError(f"a perceiver without {name}", expected=f"{name}: at least 1")


def build(model: ModelRecord) -> nn.Module:
    """Build the resampler that a manifest describes; its weights are not initialised for use."""
    return Perceiver(read_config(PerceiverConfig, model))


class Perceiver(nn.Module):
    """Learned latents that read the context, layer by layer; one norm at the end."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        hidden, context = config.hidden, config.context
        self.config = config
        self.context_proj = nn.Linear(context, hidden) if context != hidden else nn.Identity()
        self.latents = nn.Parameter(torch.empty(config.latents, hidden))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = UnitNorm(config)

    def forward(self, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """Resample ``context`` [B, T, C] → [B, N, D].

        ``context_mask`` [B, T] is zero at padding, which no latent reads; None reads all.
        """
        self._check(context, context_mask)
        mask = None
        if context_mask is not None:
            # The latents themselves, which lie before the context, are always read.
            mask = F.pad(context_mask != 0, (self.config.latents, 0), value=True)[:, None, None]
        context = self.context_proj(context)  # [B, T, D]
        x = self.latents.expand(len(context), -1, -1)  # [B, N, D]
        for layer in self.layers:
            x = layer(x, context, mask)
        out: Tensor = self.final_norm(x)
        return out

    def _check(self, context: Tensor, context_mask: Tensor | None) -> None:
        if context.ndim != 3 or context.shape[-1] != self.config.context:
            raise UsageError(
                "context has another shape",
                expected=f"[B, T, {self.config.context}]",
                got=str(list(context.shape)),
            )
        if context_mask is not None and context_mask.shape != context.shape[:2]:
            raise UsageError(
                "context_mask has another shape",
                expected=str(list(context.shape[:2])),
                got=str(list(context_mask.shape)),
            )


class Layer(nn.Module):
    """Attention, then a gated feed-forward network; each is added, and nothing is normalised."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.ffn = FeedForward(config)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` [B, N, D]; ``context`` [B, T, D]; ``mask`` [B, 1, 1, N + T] → [B, N, D]."""
        x = x + self.attention(x, context, mask)
        out: Tensor = x + self.ffn(x)
        return out


class Attention(nn.Module):
    """Multi-head attention of the latents to themselves, then the context; scaled by 1/sqrt(E)."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden, config.heads * config.dim_head
        self.heads = config.heads
        self.q_proj = nn.Linear(hidden, inner, bias=False)
        self.k_proj = nn.Linear(hidden, inner, bias=False)
        self.v_proj = nn.Linear(hidden, inner, bias=False)
        self.out_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` [B, N, D]; ``context`` [B, T, D]; ``mask`` [B, 1, 1, N + T] → [B, N, D]."""
        read = torch.cat([x, context], dim=1)  # [B, N + T, D]
        q, k, v = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, N or N + T, E]
            for projected in (self.q_proj(x), self.k_proj(read), self.v_proj(read))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """GEGLU: ``down(gelu(gate(x)) * up(x))``, with the exact (erf) GELU."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden, config.ffn)
        self.gate_proj = nn.Linear(config.hidden, config.ffn)
        self.down_proj = nn.Linear(config.ffn, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, N, D] → [B, N, D]."""
        out: Tensor = self.down_proj(F.gelu(self.gate_proj(x)) * self.up_proj(x))
        return out


class UnitNorm(nn.Module):
    """Each vector brought to the length sqrt(D), then scaled per channel.

    An RMSNorm whose eps is a least length: ``x / max(‖x‖, eps) * sqrt(D) * weight``.
    """

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.empty(config.hidden))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, N, D] → [B, N, D]."""
        out: Tensor = F.normalize(x, dim=-1, eps=self.eps) * len(self.weight) ** 0.5 * self.weight
        return out
