"""Soprano LM: the language model of Soprano 1.1, whose hidden states the decoder makes audible.

Source: ekwek/Soprano-1.1-80M, a Qwen3 (arXiv:2505.09388) as ``modeling_qwen3.py`` of transformers
4.52.1 computes it: pre-norm, grouped-query attention with a norm on every query and key head.

Shapes: B sequences, T tokens, D hidden, H heads, K key heads, W width of a head (H·W need not be
D), V vocab. Activations have the weights' dtype; rotary angles and products are float32.
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
    "attention": ("causal",),
    "qk_norm": ("rms_norm",),
    "rope": ("half_split",),
    "rope_base": float,
    "norm": ("rms_norm",),
    "norm_position": ("pre",),
    "norm_eps": float,
    "activation": ("silu",),
}


@dataclass(frozen=True, slots=True)
class SopranoLMConfig:
    """Dims, and the numbers among the conventions."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rope_base: float
    norm_eps: float

    def __post_init__(self) -> None:
        if self.kv_heads == 0 or self.heads == 0 or self.heads % self.kv_heads:
            raise UsageError(f"{self.heads} heads do not share {self.kv_heads} key heads equally")
        if self.head_dim == 0 or self.head_dim % 2:
            raise UsageError(f"a head of width {self.head_dim} has no two halves to turn")


@dataclass(frozen=True, slots=True)
class SopranoLMOutput:
    """What the model gives.

    ``last_hidden_state`` [B, T, D] comes after the final norm: that of the audio tokens,
    transposed and in float32, is what the decoder reads. ``logits`` [B, T, V] are those of the
    token that follows.
    """

    last_hidden_state: Tensor
    logits: Tensor


def build(model: ModelRecord) -> nn.Module:
    """Build the model that a manifest describes; its weights are not initialised for use."""
    return SopranoLM(read_config(SopranoLMConfig, model))


class SopranoLM(nn.Module):
    """An embedding, causal layers, a norm, and a head of its own."""

    def __init__(self, config: SopranoLMConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab, config.hidden)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = nn.RMSNorm(config.hidden, config.norm_eps)
        self.lm_head = nn.Linear(config.hidden, config.vocab, bias=False)

    def forward(self, input_ids: Tensor) -> SopranoLMOutput:
        """Read ``input_ids`` [B, T], integers below V; padding, if any, stands at the end."""
        if input_ids.ndim != 2:
            raise UsageError(
                "input_ids have another shape", expected="[B, T]", got=str(list(input_ids.shape))
            )
        rope = rope_table(input_ids.shape[1], self.config, input_ids.device)
        x = self.token_embedding(input_ids)  # [B, T, D]
        for layer in self.layers:
            x = layer(x, rope)
        x = self.final_norm(x)
        return SopranoLMOutput(last_hidden_state=x, logits=self.lm_head(x))


class Layer(nn.Module):
    """Causal self-attention, then a gated feed-forward network; each normalises, then adds."""

    def __init__(self, config: SopranoLMConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.hidden, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = nn.RMSNorm(config.hidden, config.norm_eps)
        self.ffn = FeedForward(config)

    def forward(self, x: Tensor, rope: Tensor) -> Tensor:
        """``x`` [B, T, D]; ``rope`` of ``rope_table`` → [B, T, D]."""
        x = x + self.attention(self.attention_norm(x), rope)
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


class Attention(nn.Module):
    """Causal attention, scaled by 1/sqrt(W); each H/K heads in a row share one of keys and values.

    Queries and keys are normalised head by head, with one weight for all heads, then turned.
    """

    def __init__(self, config: SopranoLMConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        inner, kv_inner = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, inner, bias=False)
        self.k_proj = nn.Linear(config.hidden, kv_inner, bias=False)
        self.v_proj = nn.Linear(config.hidden, kv_inner, bias=False)
        self.out_proj = nn.Linear(inner, config.hidden, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, config.norm_eps)
        self.k_norm = nn.RMSNorm(config.head_dim, config.norm_eps)

    def forward(self, x: Tensor, rope: Tensor) -> Tensor:
        """``x`` [B, T, D]; ``rope`` of ``rope_table`` → [B, T, D]."""
        q, k, v = (
            proj(x).unflatten(-1, (-1, self.head_dim))  # [B, T, H or K, W]
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q = rotate(self.q_norm(q).transpose(1, 2), rope)  # [B, H, T, W]
        k = rotate(self.k_norm(k).transpose(1, 2), rope)  # [B, K, T, W]
        mixed = F.scaled_dot_product_attention(
            q, k, v.transpose(1, 2), is_causal=True, enable_gqa=True
        )
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """SwiGLU: ``down(silu(gate(x)) * up(x))``."""

    def __init__(self, config: SopranoLMConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, T, D]."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


def rope_table(tokens: int, config: SopranoLMConfig, device: torch.device) -> Tensor:
    """Return the cosines and the sines [2, T, W/2], float32, of position / base^(2i/W)."""
    pairs = torch.arange(0, config.head_dim, 2, device=device, dtype=torch.float32)
    positions = torch.arange(tokens, device=device, dtype=torch.float32)
    angles = torch.outer(positions, 1 / config.rope_base ** (pairs / config.head_dim))
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn element i of ``x`` [B, H, T, W] together with element i + W/2, by the i-th angle."""
    cos, sin = rope
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x.dtype)
