"""BigVGAN v2: a vocoder, from mels to a waveform.

Source: NVIDIA/BigVGAN 7d2b454, ``AMPBlock1`` with SnakeBeta (Lee et al. 2022, arXiv:2206.04658).
Every stage multiplies the rate and halves the channels. Activations run at twice the rate, so
that the harmonics they make can be filtered away before they fold back.

Shapes: B rows, M mels, T frames, C channels, K taps of a filter. Activations have the weights'
dtype.
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
    "activation": ("snake_beta",),
    "activation_parameters": ("log",),
    "activation_eps": float,
    "activation_oversampling": (2,),
    "activation_padding": ("replicate",),
    "conv_padding": ("zeros",),
    "block_merge": ("mean",),
    "output_range": ("clamp",),
}


@dataclass(frozen=True, slots=True)
class BigVGANConfig:
    """Dims, and the one number among the conventions.

    ``rates`` and ``kernels`` have an entry per stage; ``resblock_kernels`` and ``dilations`` one
    per residual block of a stage.
    """

    mels: int
    channels: int
    conv_kernel: int
    rates: tuple[int, ...]
    kernels: tuple[int, ...]
    resblock_kernels: tuple[int, ...]
    dilations: tuple[tuple[int, ...], ...]
    filter_taps: int
    activation_eps: float

    def __post_init__(self) -> None:
        if len(self.kernels) != len(self.rates):
            raise UsageError("every stage has a rate and a kernel")
        if len(self.dilations) != len(self.resblock_kernels) or not self.dilations:
            raise UsageError(
                "every residual block has a kernel and dilations; there is at least one"
            )
        if self.channels % 2 ** len(self.rates):
            raise UsageError(f"channels {self.channels} cannot be halved by every stage")
        pairs = zip(self.rates, self.kernels, strict=True)
        if any(rate < 1 or kernel < rate or (kernel - rate) % 2 for rate, kernel in pairs):
            raise UsageError("a kernel is its rate and an even number more")
        if any(kernel % 2 == 0 for kernel in (self.conv_kernel, *self.resblock_kernels)):
            raise UsageError("a convolution of even kernel cannot give as many frames as it takes")
        if self.filter_taps < 2:
            raise UsageError("a filter at twice the rate spans at least two samples")


def build(model: ModelRecord) -> nn.Module:
    """Build the vocoder that a manifest describes; its weights are not initialised for use."""
    return BigVGAN(read_config(BigVGANConfig, model))


class BigVGAN(nn.Module):
    """A convolution, the stages, and an activation and a convolution into one channel."""

    def __init__(self, config: BigVGANConfig) -> None:
        super().__init__()
        kernel = config.conv_kernel
        last = config.channels // 2 ** len(config.rates)
        self.config = config
        self.input_conv = nn.Conv1d(config.mels, config.channels, kernel, padding=kernel // 2)
        self.stages = nn.ModuleList(Stage(config, i) for i in range(len(config.rates)))
        self.final_activation = OversampledSnakeBeta(last, config)
        self.out_conv = nn.Conv1d(last, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, mel: Tensor) -> Tensor:
        """Return the waveform [B, 1, T · prod(rates)], within ±1.

        ``mel`` [B, M, T] holds natural logarithms; the manifest's audio record says how they are
        made.
        """
        if mel.ndim != 3 or mel.shape[1] != self.config.mels or mel.shape[2] == 0:
            raise UsageError(
                "mel has another shape",
                expected=f"[B, {self.config.mels}, T], T at least 1",
                got=str(list(mel.shape)),
            )
        x = self.input_conv(mel)  # [B, C, T]
        for stage in self.stages:
            x = stage(x)
        wave: Tensor = self.out_conv(self.final_activation(x))
        return wave.clamp(-1, 1)


class Stage(nn.Module):
    """A transposed convolution to a higher rate, then the mean of parallel residual blocks."""

    def __init__(self, config: BigVGANConfig, i: int) -> None:
        super().__init__()
        rate, kernel = config.rates[i], config.kernels[i]
        taken, given = config.channels // 2**i, config.channels // 2 ** (i + 1)
        padding = (kernel - rate) // 2
        self.upsample = nn.ConvTranspose1d(taken, given, kernel, stride=rate, padding=padding)
        self.blocks = nn.ModuleList(
            ResidualBlock(given, block_kernel, dilations, config)
            for block_kernel, dilations in zip(
                config.resblock_kernels, config.dilations, strict=True
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, T] → [B, C/2, T · rate]."""
        x = self.upsample(x)
        first, *others = self.blocks
        total: Tensor = first(x)
        for block in others:
            total = total + block(x)
        return total / len(self.blocks)


class ResidualBlock(nn.Module):
    """Pairs of convolutions, each after an activation; the first of a pair is dilated."""

    def __init__(
        self, channels: int, kernel: int, dilations: tuple[int, ...], config: BigVGANConfig
    ) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(same_conv(channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(same_conv(channels, kernel, 1) for _ in dilations)
        self.activations = nn.ModuleList(
            OversampledSnakeBeta(channels, config) for _ in range(2 * len(dilations))
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, T] → [B, C, T]."""
        for n, (conv1, conv2) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            h = conv1(self.activations[2 * n](x))
            x = x + conv2(self.activations[2 * n + 1](h))
        return x


class OversampledSnakeBeta(nn.Module):
    """SnakeBeta at twice the rate, between two low-pass filters."""

    def __init__(self, channels: int, config: BigVGANConfig) -> None:
        super().__init__()
        self.eps = config.activation_eps
        self.alpha = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels))
        self.upsample = Upsample(config.filter_taps)
        self.downsample = Downsample(config.filter_taps)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, T] → [B, C, T]."""
        x = snake_beta(self.upsample(x), self.alpha, self.beta, self.eps)
        out: Tensor = self.downsample(x)
        return out


class Upsample(nn.Module):
    """Twice the rate: zeros between the samples, then one filter for every channel."""

    filter: Tensor

    def __init__(self, taps: int) -> None:
        super().__init__()
        self.padding = taps // 2 - 1
        # What the padding became, and the rest of the filter's length.
        self.cut_left = 2 * self.padding + (taps - 2) // 2
        self.cut_right = 2 * self.padding + (taps - 1) // 2
        self.register_buffer("filter", torch.empty(1, 1, taps))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, T] → [B, C, 2T]."""
        channels = x.shape[1]
        x = F.pad(x, (self.padding, self.padding), mode="replicate")
        filters = self.filter.expand(channels, -1, -1)  # [C, 1, K]
        # Doubled, as every other sample that the filter sees is zero.
        x = 2 * F.conv_transpose1d(x, filters, stride=2, groups=channels)
        return x[..., self.cut_left : x.shape[-1] - self.cut_right]


class Downsample(nn.Module):
    """Half the rate: every other sample of what one filter makes of every channel."""

    filter: Tensor

    def __init__(self, taps: int) -> None:
        super().__init__()
        self.pads = ((taps - 1) // 2, taps // 2)  # an odd sample goes to the right
        self.register_buffer("filter", torch.empty(1, 1, taps))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, 2T] → [B, C, T]."""
        channels = x.shape[1]
        x = F.pad(x, self.pads, mode="replicate")
        return F.conv1d(x, self.filter.expand(channels, -1, -1), stride=2, groups=channels)


def snake_beta(x: Tensor, alpha: Tensor, beta: Tensor, eps: float) -> Tensor:
    """Return ``x + sin²(e^alpha · x) / (e^beta + eps)``.

    ``x`` [B, C, T]; ``alpha`` and ``beta`` [C] are the logarithms of frequency and of 1/amplitude.
    """
    frequency, damping = alpha.exp()[:, None], beta.exp()[:, None]  # [C, 1]
    return x + (x * frequency).sin().square() / (damping + eps)


def same_conv(channels: int, kernel: int, dilation: int) -> nn.Conv1d:
    """Return a convolution into as many channels and frames as it takes, padded by zeros."""
    padding = dilation * (kernel // 2)
    return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=padding)
