"""GPT-NeoX: a causal language model with partial rotary embedding and parallel sublayers.

Source: Black et al. 2022 (arXiv:2204.06745), as ``modeling_gpt_neox.py`` of transformers 5.23.0
computes it. Pre-norm; the two sublayers of a layer see the same input, or one after the other.

Shapes: B sequences, T tokens, D hidden, H heads, W width of a head (D/H), R of it that rotary
embedding turns, V vocab. Activations have the weights' dtype; rotary angles and products are
float32.
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
    "position_embedding": ("rope",),
    "rope": ("half_split",),
    "rope_base": float,
    "norm": ("layer_norm",),
    "norm_position": ("pre",),
    "norm_eps": float,
    "residual": ("parallel", "sequential"),
    "activation": ("gelu_erf", "gelu_tanh"),
}


@dataclass(frozen=True, slots=True)
class GPTNeoXConfig:
    """Dims, and the numbers among the conventions; ``rotary`` is R."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    vocab: int
    rotary: int
    rope_base: float
    norm_eps: float

    def __post_init__(self) -> None:
        if self.heads == 0 or self.hidden % self.heads:
            raise UsageError(f"hidden {self.hidden} does not make {self.heads} equal heads")
        if self.rotary % 2 or self.rotary > self.hidden // self.heads:
            raise UsageError(
                f"{self.rotary} elements of a head have no two halves to turn",
                expected=f"an even number up to {self.hidden // self.heads}, the head's width",
            )


@dataclass(frozen=True, slots=True)
class GPTNeoXOutput:
    """What the model gives.

    ``last_hidden_state`` [B, T, D] comes after the final norm; ``logits`` [B, T, V] are those of
    the token that follows.
    """

    last_hidden_state: Tensor
    logits: Tensor


def build(model: ModelRecord) -> nn.Module:
    """Build the model that a manifest describes; its weights are not initialised for use."""
    return GPTNeoX(
        read_config(GPTNeoXConfig, model),
        parallel=model.conventions["residual"] == "parallel",
        approximate="tanh" if model.conventions["activation"] == "gelu_tanh" else "none",
    )


class GPTNeoX(nn.Module):
    """An embedding, causal layers, a norm, and a head of its own.

    ``parallel`` says that both sublayers of a layer see its input; ``approximate`` is that of
    ``torch.nn.functional.gelu``.
    """

    def __init__(self, config: GPTNeoXConfig, *, parallel: bool, approximate: str) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab, config.hidden)
        self.layers = nn.ModuleList(
            Layer(config, parallel=parallel, approximate=approximate) for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.lm_head = nn.Linear(config.hidden, config.vocab, bias=False)

    def forward(self, input_ids: Tensor) -> GPTNeoXOutput:
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
        return GPTNeoXOutput(last_hidden_state=x, logits=self.lm_head(x))


class Layer(nn.Module):
    """Causal self-attention and a feed-forward network, each behind a norm of its own."""

    def __init__(self, config: GPTNeoXConfig, *, parallel: bool, approximate: str) -> None:
        super().__init__()
        self.parallel = parallel
        self.attention_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.ffn = FeedForward(config, approximate)

    def forward(self, x: Tensor, rope: Tensor) -> Tensor:
        """``x`` [B, T, D]; ``rope`` of ``rope_table`` → [B, T, D]."""
        attended = x + self.attention(self.attention_norm(x), rope)
        out: Tensor = attended + self.ffn(self.ffn_norm(x if self.parallel else attended))
        return out


class Attention(nn.Module):
    """Causal attention, scaled by 1/sqrt(W), of queries and keys that are turned in part."""

    def __init__(self, config: GPTNeoXConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.hidden, config.hidden)
        self.k_proj = nn.Linear(config.hidden, config.hidden)
        self.v_proj = nn.Linear(config.hidden, config.hidden)
        self.out_proj = nn.Linear(config.hidden, config.hidden)

    def forward(self, x: Tensor, rope: Tensor) -> Tensor:
        """``x`` [B, T, D]; ``rope`` of ``rope_table`` → [B, T, D]."""
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, W]
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(rotate(q, rope), rotate(k, rope), v, is_causal=True)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two layers around GELU, exact or approximated by tanh."""

    def __init__(self, config: GPTNeoXConfig, approximate: str) -> None:
        super().__init__()
        self.approximate = approximate
        self.fc1 = nn.Linear(config.hidden, config.ffn)
        self.fc2 = nn.Linear(config.ffn, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, T, D]."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))
        return out


def rope_table(tokens: int, config: GPTNeoXConfig, device: torch.device) -> Tensor:
    """Return the cosines and the sines [2, T, R/2], float32, of position / base^(2i/R)."""
    pairs = torch.arange(0, config.rotary, 2, device=device, dtype=torch.float32)
    positions = torch.arange(tokens, device=device, dtype=torch.float32)
    angles = torch.outer(positions, 1 / config.rope_base ** (pairs / max(config.rotary, 1)))
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn the first R elements of each head of ``x`` [B, H, T, W]: i together with i + R/2."""
    cos, sin = rope
    half = cos.shape[-1]
    first, second = x[..., :half].float(), x[..., half : 2 * half].float()
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.to(x.dtype), x[..., 2 * half :]], dim=-1)
