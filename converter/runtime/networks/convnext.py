"""ConvNeXt in one dimension: what the codecs and vocoders after Vocos are made of.

Source: Liu et al. 2022 (arXiv:2201.03545), as Vocos (arXiv:2306.00814) has it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNeXtBlock(nn.Module):
    """A convolution per channel, a norm, two layers per frame, scaled, then added."""

    def __init__(self, width: int, ffn: int, kernel: int, eps: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps)
        self.fc1 = nn.Linear(width, ffn)
        self.fc2 = nn.Linear(ffn, width)
        self.layer_scale = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, W] → [B, T, W]."""
        h = self.norm(self.depthwise(x.mT).mT)
        out: Tensor = x + self.layer_scale * self.fc2(F.gelu(self.fc1(h)))
        return out
