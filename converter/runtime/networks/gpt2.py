"""GPT-2: a causal language model whose head is its token embedding.

Source: Radford et al. 2019, as ``modeling_gpt2.py`` of transformers 4.52.1 computes it. Pre-norm:
every sublayer sees a normalised input, and its result is added to the input as it was.

Shapes: B sequences, T tokens, D hidden, H heads, V vocab. Activations have the weights' dtype.
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
    "position_embedding": ("learned",),
    "norm": ("layer_norm",),
    "norm_position": ("pre",),
    "norm_eps": float,
    "activation": ("gelu_tanh",),
}


@dataclass(frozen=True, slots=True)
class GPT2Config:
    """Dims, and the one number among the conventions."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    vocab: int
    positions: int
    norm_eps: float


@dataclass(frozen=True, slots=True)
class GPT2Output:
    """What the model gives.

    ``last_hidden_state`` [B, T, D] comes after the final norm; ``logits`` [B, T, V] are those of
    the token that follows.
    """

    last_hidden_state: Tensor
    logits: Tensor


def build(model: ModelRecord) -> nn.Module:
    """Build the model that a manifest describes; its weights are not initialised for use."""
    return GPT2(read_config(GPT2Config, model))


class GPT2(nn.Module):
    """Embeddings, causal layers, a norm, and the head that is tied to the embedding."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        hidden = config.hidden
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab, hidden)
        self.position_embedding = nn.Embedding(config.positions, hidden)
        self.layers = nn.ModuleList(
            Layer(hidden, config.heads, config.ffn, config.norm_eps) for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.lm_head = nn.Linear(hidden, config.vocab, bias=False)
        self.lm_head.weight = self.token_embedding.weight

    def forward(self, input_ids: Tensor) -> GPT2Output:
        """Read ``input_ids`` [B, T], integers below V; padding, if any, stands at the end."""
        self._check(input_ids)
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.token_embedding(input_ids) + self.position_embedding(position_ids)  # [B, T, D]
        for layer in self.layers:
            x = layer(x)
        x = self.final_norm(x)
        return GPT2Output(last_hidden_state=x, logits=self.lm_head(x))

    def _check(self, input_ids: Tensor) -> None:
        if input_ids.ndim != 2 or input_ids.shape[1] > self.config.positions:
            raise UsageError(
                "input_ids have another shape",
                expected=f"[B, T], T at most {self.config.positions}",
                got=str(list(input_ids.shape)),
            )


class Layer(nn.Module):
    """Causal self-attention, then a feed-forward network; each normalises, then adds."""

    def __init__(self, hidden: int, heads: int, ffn: int, norm_eps: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden, norm_eps)
        self.attention = CausalAttention(hidden, heads)
        self.ffn_norm = nn.LayerNorm(hidden, norm_eps)
        self.ffn = FeedForward(hidden, ffn)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, T, D]."""
        x = x + self.attention(self.attention_norm(x))
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


class CausalAttention(nn.Module):
    """Multi-head attention to oneself and what came before, scaled by 1/sqrt(D/H)."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        if heads == 0 or hidden % heads:
            raise UsageError(f"hidden {hidden} does not make {heads} equal heads")
        self.heads = heads
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden)
        self.v_proj = nn.Linear(hidden, hidden)
        self.out_proj = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, T, D]."""
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, D/H]
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two layers around the tanh form of GELU."""

    def __init__(self, hidden: int, ffn: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden, ffn)
        self.fc2 = nn.Linear(ffn, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, T, D]."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out
