"""The gpt layer of IndexTTS2's S2Mel: states of the language model at the width of codes.

Source: index-tts ee40fa7, s2mel. What comes out is added to what the codes stand for
(``SemanticCodec.vq2emb``, transposed), and goes into the length regulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from converter.errors import UsageError
from converter.manifest import ModelRecord
from converter.runtime.networks.config import read_config

CONVENTIONS: Mapping[str, object] = {"activation": ("none",)}


@dataclass(frozen=True, slots=True)
class GPTLayerConfig:
    """``widths`` of what each layer takes, then of what the last one gives."""

    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.widths) < 2:
            raise UsageError("a layer goes from one width to another")


def build(model: ModelRecord) -> nn.Module:
    """Build the layers that a manifest describes; their weights are not initialised for use."""
    return GPTLayer(read_config(GPTLayerConfig, model))


class GPTLayer(nn.Module):
    """Linear layers, one after another, with nothing between them."""

    def __init__(self, config: GPTLayerConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(config.widths))

    def forward(self, states: Tensor) -> Tensor:
        """``states`` [..., first width] → [..., last width], in the dtype of the weights."""
        if states.shape[-1] != self.config.widths[0]:
            raise UsageError(
                "states have another shape",
                expected=f"[..., {self.config.widths[0]}]",
                got=str(list(states.shape)),
            )
        for layer in self.layers:
            states = layer(states)
        return states
