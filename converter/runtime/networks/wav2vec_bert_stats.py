"""Standardisation of Wav2Vec2-BERT features by stored statistics, as IndexTTS2 reads them.

Source: index-tts ee40fa7, wav2vec2bert_stats.pt: (hidden - mean) / sqrt(var), without epsilon.

Shapes: B recordings, T frames, D hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from converter.errors import UsageError
from converter.manifest import ModelRecord
from converter.runtime.networks.config import read_config

CONVENTIONS: Mapping[str, object] = {"standardize": ("mean_over_sqrt_var",)}


@dataclass(frozen=True, slots=True)
class StatsConfig:
    """The number of channels."""

    hidden: int


def build(model: ModelRecord) -> nn.Module:
    """Build the standardisation that a manifest describes; it holds no statistics yet."""
    return Wav2VecBertStats(read_config(StatsConfig, model))


class Wav2VecBertStats(nn.Module):
    """One mean and one variance per channel, taken over many recordings."""

    mean: Tensor
    var: Tensor

    def __init__(self, config: StatsConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(config.hidden))
        self.register_buffer("var", torch.empty(config.hidden))

    def forward(self, hidden: Tensor) -> Tensor:
        """Standardise ``hidden`` [B, T, D], the encoder's hidden state 17 → [B, T, D].

        Computed in the wider of the two dtypes; the result has that of ``hidden``.
        """
        if hidden.shape[-1:] != self.mean.shape:
            raise UsageError(
                "hidden has another width",
                expected=f"[B, T, {len(self.mean)}]",
                got=str(list(hidden.shape)),
            )
        return ((hidden - self.mean) / self.var.sqrt()).to(hidden.dtype)
