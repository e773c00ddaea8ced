"""WaveNet: gated convolutions whose skip halves are summed, conditioned on one vector per row.

Source: index-tts ee40fa7, s2mel, after van den Oord et al. 2016 (arXiv:1609.03499); here the
convolutions look both ways.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WaveNet(nn.Module):
    """Gated convolutions of ``width`` channels, layer j dilated by ``dilation_rate ** j``."""

    def __init__(self, width: int, layers: int, kernel: int, dilation_rate: int) -> None:
        super().__init__()
        self.cond_layer = nn.Conv1d(width, 2 * width * layers, kernel_size=1)
        self.in_layers = nn.ModuleList(
            ReflectConv1d(width, 2 * width, kernel, dilation=dilation_rate**j)
            for j in range(layers)
        )
        # Nothing follows the last layer, so its residual half does not exist.
        self.res_skip_layers = nn.ModuleList(
            nn.Conv1d(width, 2 * width if j < layers - 1 else width, kernel_size=1)
            for j in range(layers)
        )

    def forward(self, y: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """``y`` [B, W, T], ``condition`` [B, W], ``mask`` [B, T], true within a row → [B, W, T].

        Frames outside ``mask`` are zero between the layers and in the result.
        """
        width = y.shape[1]
        mask = mask[:, None].to(y.dtype)  # [B, 1, T]
        offsets = self.cond_layer(condition[..., None]).split(2 * width, dim=1)  # each [B, 2W, 1]
        skips = torch.zeros_like(y)
        for in_layer, res_skip_layer, offset in zip(
            self.in_layers, self.res_skip_layers, offsets, strict=True
        ):
            value, gate = (in_layer(y) + offset).chunk(2, dim=1)  # [B, W, T]
            *residual, skip = res_skip_layer(value.tanh() * gate.sigmoid()).split(width, dim=1)
            skips = skips + skip
            if residual:
                y = (y + residual[0]) * mask
        return skips * mask


class ReflectConv1d(nn.Conv1d):
    """A convolution into as many frames as it is given, the ends padded by reflection.

    An odd frame of padding goes to the left. Where there are too few frames to reflect, zeros
    first extend them on the right, and as many are cut there after padding.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, W, T] → [B, 2W, T]."""
        total = (self.kernel_size[0] - 1) * self.dilation[0]
        right = total // 2
        left = total - right
        missing = max(0, left + 1 - x.shape[-1])
        x = F.pad(F.pad(x, (0, missing)), (left, right), mode="reflect")
        return super().forward(x[..., : x.shape[-1] - missing])
