"""BERT: a bidirectional encoder, with its pooler and pre-training heads where the dims ask.

Source: Devlin et al. 2018 (arXiv:1810.04805), as ``modeling_bert.py`` of transformers 4.52.1
computes it. Post-norm: every sublayer's result is added to its input, then normalised.

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
    "attention": ("bidirectional",),
    "norm": ("layer_norm",),
    "norm_position": ("post",),
    "norm_eps": float,
    "activation": ("gelu_erf",),
    "position_embedding": ("learned",),
}


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Dims, and the one number among the conventions; the last three dims are 0 or 1."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    vocab: int
    positions: int
    token_types: int
    pooler: int
    mlm_head: int
    nsp_head: int
    norm_eps: float

    def __post_init__(self) -> None:
        if self.heads == 0 or self.hidden % self.heads:
            raise UsageError(f"hidden {self.hidden} does not make {self.heads} equal heads")
        if self.nsp_head and not self.pooler:
            raise UsageError("the next-sentence head reads the pooler", expected="pooler: 1")


@dataclass(frozen=True, slots=True)
class BertOutput:
    """What the encoder gives; None where the model has no such head.

    ``last_hidden_state`` [B, T, D]; ``pooler_output`` [B, D]; ``mlm_logits`` [B, T, V];
    ``nsp_logits`` [B, 2], of which column 0 says that the second sentence follows the first.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None
    mlm_logits: Tensor | None
    nsp_logits: Tensor | None


def build(model: ModelRecord) -> nn.Module:
    """Build the encoder that a manifest describes; its weights are not initialised for use."""
    return Bert(read_config(BertConfig, model))


def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return sentence embeddings of unit length [B, D], float32.

    ``hidden`` [B, T, D] is averaged where ``attention_mask`` [B, T] is not zero. Source:
    sentence-transformers, Pooling (mean) followed by Normalize. A sequence without any attended
    token gives zeros.
    """
    attended = (attention_mask != 0)[..., None]  # [B, T, 1]
    total = hidden.float().masked_fill(~attended, 0).sum(dim=1)  # [B, D]
    return F.normalize(total / attended.sum(dim=1).clamp(min=1), dim=-1)


class Bert(nn.Module):
    """The encoder: embeddings, layers, and the heads that the dims ask for."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab, hidden)
        self.position_embedding = nn.Embedding(config.positions, hidden)
        self.token_type_embedding = nn.Embedding(config.token_types, hidden)
        self.embedding_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.pooler = Pooler(config) if config.pooler else None
        self.mlm_head = MaskedLMHead(config) if config.mlm_head else None
        self.nsp_head = nn.Linear(hidden, 2) if config.nsp_head else None
        if self.mlm_head is not None:
            self.mlm_head.decoder.weight = self.token_embedding.weight

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> BertOutput:
        """Encode ``input_ids`` [B, T], integers below V.

        ``attention_mask`` [B, T] is zero at padding, which nobody attends to; None attends to
        all. ``token_type_ids`` [B, T] tell the sentences of a pair apart; None is all zeros.
        """
        self._check(input_ids, attention_mask, token_type_ids)
        mask = None if attention_mask is None else (attention_mask != 0)[:, None, None, :]
        x = self._embed(input_ids, token_type_ids)  # [B, T, D]
        for layer in self.layers:
            x = layer(x, mask)
        pooled = None if self.pooler is None else self.pooler(x)
        return BertOutput(
            last_hidden_state=x,
            pooler_output=pooled,
            mlm_logits=None if self.mlm_head is None else self.mlm_head(x),
            nsp_logits=None if self.nsp_head is None else self.nsp_head(pooled),
        )

    def _embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        out: Tensor = self.embedding_norm(
            self.token_embedding(input_ids)
            + self.token_type_embedding(token_type_ids)
            + self.position_embedding(position_ids)
        )
        return out

    def _check(self, input_ids: Tensor, *beside: Tensor | None) -> None:
        if input_ids.ndim != 2 or input_ids.shape[1] > self.config.positions:
            raise UsageError(
                "input_ids have another shape",
                expected=f"[B, T], T at most {self.config.positions}",
                got=str(list(input_ids.shape)),
            )
        for ids in beside:
            if ids is not None and ids.shape != input_ids.shape:
                raise UsageError(
                    "attention_mask and token_type_ids have the shape of input_ids",
                    expected=str(list(input_ids.shape)),
                    got=str(list(ids.shape)),
                )


class Layer(nn.Module):
    """Self-attention, then a feed-forward network; each added, then normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.ffn = FeedForward(config)
        self.ffn_norm = nn.LayerNorm(config.hidden, config.norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` [B, T, D]; ``mask`` [B, 1, 1, T], true where attended → [B, T, D]."""
        x = self.attention_norm(x + self.attention(x, mask))
        out: Tensor = self.ffn_norm(x + self.ffn(x))
        return out


class SelfAttention(nn.Module):
    """Multi-head attention over all tokens, scaled by 1/sqrt(D/H)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.hidden, config.hidden)
        self.k_proj = nn.Linear(config.hidden, config.hidden)
        self.v_proj = nn.Linear(config.hidden, config.hidden)
        self.out_proj = nn.Linear(config.hidden, config.hidden)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` [B, T, D]; ``mask`` [B, 1, 1, T], true where attended → [B, T, D]."""
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, D/H]
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two layers around the exact (erf) GELU."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden, config.ffn)
        self.fc2 = nn.Linear(config.ffn, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, T, D]."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Pooler(nn.Module):
    """A sequence as one vector, taken from its first token."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, D], each within ±1."""
        return torch.tanh(self.dense(x[:, 0]))


class MaskedLMHead(nn.Module):
    """Logits of the token at each position; the decoder's weight is the token embedding's."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.decoder = nn.Linear(config.hidden, config.vocab)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, T, V]."""
        logits: Tensor = self.decoder(self.norm(F.gelu(self.dense(x))))
        return logits
