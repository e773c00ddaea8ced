"""The length regulator of IndexTTS2's S2Mel: semantic features at the frame rate of mels.

Source: index-tts ee40fa7, s2mel, for continuous content without F0.

Shapes: B rows, S frames in, T frames out, I input, C channels. Activations have the weights' dtype.
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
    "interpolation": ("nearest",),
    "norm": ("group_norm",),
    "norm_groups": (1,),
    "norm_eps": float,
    "activation": ("mish",),
    "conv_padding": ("zeros",),
}


@dataclass(frozen=True, slots=True)
class LengthRegulatorConfig:
    """Dims, and the one number among the conventions that is read."""

    layers: int
    input: int
    channels: int
    kernel: int
    norm_eps: float

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise UsageError("a convolution of even kernel cannot give as many frames as it takes")


def build(model: ModelRecord) -> nn.Module:
    """Build the regulator that a manifest describes; its weights are not initialised for use."""
    return LengthRegulator(read_config(LengthRegulatorConfig, model))


class LengthRegulator(nn.Module):
    """A projection, a stretch in time, and convolutions that smooth it."""

    def __init__(self, config: LengthRegulatorConfig) -> None:
        super().__init__()
        self.config = config
        self.input_proj = nn.Linear(config.input, config.channels)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.out_conv = nn.Conv1d(config.channels, config.channels, kernel_size=1)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return the content [B, T, C] of ``features`` [B, S, I], T being the largest length.

        Every row is stretched to T frames, then zero from its own of ``lengths`` [B] on. Upstream
        asks for ``floor(1.72 * S)`` frames.
        """
        self._check(features, lengths)
        frames = int(lengths.max())  # waits for the device: the result's shape hangs on it
        x = self.input_proj(features).mT  # [B, C, S]
        x = F.interpolate(x, size=frames, mode="nearest")  # [B, C, T]
        for layer in self.layers:
            x = layer(x)
        mask = torch.arange(frames, device=x.device) < lengths[:, None]  # [B, T]
        out: Tensor = self.out_conv(x).mT * mask[..., None]
        return out

    def _check(self, features: Tensor, lengths: Tensor) -> None:
        rows, sizes = lengths.shape, features.shape
        if len(sizes) != 3 or sizes[1] == 0 or sizes[2] != self.config.input or rows != sizes[:1]:
            raise UsageError(
                "features and lengths have other shapes",
                expected=f"[B, S, {self.config.input}], S at least 1, and [B]",
                got=f"{list(sizes)} and {list(rows)}",
            )


class Layer(nn.Module):
    """A convolution, a norm over all channels and frames of a row, padded ones included; Mish."""

    def __init__(self, config: LengthRegulatorConfig) -> None:
        super().__init__()
        channels, kernel = config.channels, config.kernel
        self.conv = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(1, channels, config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, T] → [B, C, T]."""
        return F.mish(self.norm(self.conv(x)))
