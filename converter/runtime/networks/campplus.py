"""CAM++: a recording as one speaker vector.

Source: 3D-Speaker 09e7806 (Wang et al. 2023, arXiv:2303.00332), as index-tts ee40fa7 uses it. A
small 2-D ResNet over frequencies, a dense TDNN whose layers weigh their output by a mask made
from context, then mean and deviation over time. All norms use stored statistics.

Shapes: B rows, T frames, F mel bins, W channels of the head, C channels, T' = ⌈T/2⌉ frames,
E embedding. Activations have the weights' dtype.
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
    "norm": ("batch_norm",),
    "norm_eps": float,
    "activation": ("relu",),
    "conv_padding": ("zeros",),
    "flatten": ("channel_major",),
    "dense_order": ("input_first",),
    "context": ("mean_and_segment_mean",),
    "pooling": ("mean_std_unbiased",),
}


@dataclass(frozen=True, slots=True)
class CAMPPlusConfig:
    """Dims, and the one number among the conventions.

    ``head_blocks`` has the number of blocks of each stage of the head; ``block_layers`` and
    ``dilations`` have an entry per dense block; ``segment`` is in frames.
    """

    feat: int
    embedding: int
    growth: int
    bn_size: int
    init: int
    width: int
    head_blocks: tuple[int, ...]
    tdnn_kernel: int
    block_layers: tuple[int, ...]
    kernel: int
    dilations: tuple[int, ...]
    segment: int
    norm_eps: float

    def __post_init__(self) -> None:
        if len(self.block_layers) != len(self.dilations):
            raise UsageError("every dense block has a depth and a dilation")
        if self.feat % 2 ** (len(self.head_blocks) + 1):
            raise UsageError(f"feat {self.feat} cannot be halved by all of the head")
        if self.kernel % 2 == 0 or self.tdnn_kernel % 2 == 0:
            raise UsageError("a convolution of even kernel cannot give as many frames as it takes")
        if 0 in self.head_blocks:
            raise UsageError("the first block of a stage of the head halves the frequencies")
        if self.segment == 0:
            raise UsageError("a segment has at least one frame")


def build(model: ModelRecord) -> nn.Module:
    """Build the encoder that a manifest describes; its weights are not initialised for use."""
    return CAMPPlus(read_config(CAMPPlusConfig, model))


class CAMPPlus(nn.Module):
    """The head over frequencies, the dense blocks over time, and the statistics' projection."""

    def __init__(self, config: CAMPPlusConfig) -> None:
        super().__init__()
        eps, kernel, channels = config.norm_eps, config.tdnn_kernel, config.init
        columns = config.width * (config.feat // 2 ** (len(config.head_blocks) + 1))
        self.config = config
        self.head = Head(config)
        tdnn = nn.Conv1d(columns, channels, kernel, stride=2, padding=kernel // 2, bias=False)
        self.tdnn = NormedConv(tdnn, eps)
        self.blocks = nn.ModuleList()
        for layers, dilation in zip(config.block_layers, config.dilations, strict=True):
            self.blocks.append(DenseBlock(channels, layers, dilation, config))
            channels = (channels + layers * config.growth) // 2
        self.final_norm = BatchNorm(channels, eps)
        # The vector is normalised without weights, and nothing limits its length.
        embedding = nn.Conv1d(2 * channels, config.embedding, 1, bias=False)
        self.embedding = NormedConv(embedding, eps, affine=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the speaker vectors [B, E], of any length.

        ``features`` [B, T, F] are natural logarithms of mel energies, less their mean over time,
        as the manifest's audio record says. All rows are of T frames: there is no padding.
        """
        if features.ndim != 3 or features.shape[1] < 3 or features.shape[2] != self.config.feat:
            raise UsageError(
                "features have another shape",
                expected=f"[B, T, {self.config.feat}], T at least 3: one frame has no deviation",
                got=str(list(features.shape)),
            )
        x = self.head(features.mT[:, None])  # [B, W · F', T]
        x = F.relu(self.tdnn(x))  # [B, C, T']
        for block in self.blocks:
            x = block(x)
        statistics = mean_and_std(F.relu(self.final_norm(x)))  # [B, 2C]
        vector: Tensor = self.embedding(statistics[..., None])  # [B, E, 1]
        return vector.squeeze(-1)


class Head(nn.Module):
    """A 2-D ResNet whose strides halve the frequencies and keep the frames."""

    def __init__(self, config: CAMPPlusConfig) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm1 = BatchNorm(width, eps)
        self.stages = nn.ModuleList(HeadStage(width, blocks, eps) for blocks in config.head_blocks)
        self.conv2 = nn.Conv2d(width, width, 3, stride=(2, 1), padding=1, bias=False)
        self.norm2 = BatchNorm(width, eps)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, 1, F, T] → [B, W · F', T], channel by channel, all frequencies of each."""
        x = F.relu(self.norm1(self.conv1(x)))
        for stage in self.stages:
            x = stage(x)
        return F.relu(self.norm2(self.conv2(x))).flatten(1, 2)


class HeadStage(nn.Module):
    """Residual blocks, the first of which halves the frequencies."""

    def __init__(self, width: int, blocks: int, eps: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(width, stride=2 if u == 0 else 1, eps=eps) for u in range(blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, W, F, T] → [B, W, F/2, T]."""
        for block in self.blocks:
            x = block(x)
        return x


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, which is one too where the frequencies are halved."""

    def __init__(self, width: int, stride: int, eps: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, stride=(stride, 1), padding=1, bias=False)
        self.norm1 = BatchNorm(width, eps)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(width, eps)
        shortcut = nn.Conv2d(width, width, 1, stride=(stride, 1), bias=False)
        self.shortcut = NormedConv(shortcut, eps) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, W, F, T] → [B, W, F/stride, T]."""
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(h + (x if self.shortcut is None else self.shortcut(x)))


class DenseBlock(nn.Module):
    """Layers that append what they give to what they take, then a transition to half of it."""

    def __init__(self, channels: int, layers: int, dilation: int, config: CAMPPlusConfig) -> None:
        super().__init__()
        growth = config.growth
        self.layers = nn.ModuleList(
            DenseLayer(channels + i * growth, dilation, config) for i in range(layers)
        )
        self.transition = Transition(channels + layers * growth, config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, T'] → [B, (C + layers · growth) / 2, T']."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        out: Tensor = self.transition(x)
        return out


class DenseLayer(nn.Module):
    """A bottleneck and a dilated convolution, weighed by a mask made from their context."""

    def __init__(self, channels: int, dilation: int, config: CAMPPlusConfig) -> None:
        super().__init__()
        bottleneck, kernel = config.bn_size * config.growth, config.kernel
        self.segment = config.segment
        self.norm1 = BatchNorm(channels, config.norm_eps)
        self.in_proj = nn.Conv1d(channels, bottleneck, 1, bias=False)
        self.norm2 = BatchNorm(bottleneck, config.norm_eps)
        self.conv = nn.Conv1d(
            bottleneck,
            config.growth,
            kernel,
            dilation=dilation,
            padding=dilation * (kernel // 2),
            bias=False,
        )
        self.mask = ContextMask(bottleneck, config.growth)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, T'] → [B, growth, T']."""
        h = F.relu(self.norm2(self.in_proj(F.relu(self.norm1(x)))))  # [B, bottleneck, T']
        context = h.mean(dim=-1, keepdim=True) + segment_mean(h, self.segment)
        out: Tensor = self.conv(h) * self.mask(context)
        return out


class ContextMask(nn.Module):
    """Weights between 0 and 1, from two layers per frame."""

    def __init__(self, bottleneck: int, growth: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv1d(bottleneck, bottleneck // 2, 1)
        self.fc2 = nn.Conv1d(bottleneck // 2, growth, 1)

    def forward(self, context: Tensor) -> Tensor:
        """``context`` [B, bottleneck, T'] → [B, growth, T']."""
        return torch.sigmoid(self.fc2(F.relu(self.fc1(context))))


class Transition(nn.Module):
    """A norm, then half of the channels."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.norm = BatchNorm(channels, eps)
        self.conv = nn.Conv1d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, T'] → [B, C/2, T']."""
        out: Tensor = self.conv(F.relu(self.norm(x)))
        return out


class NormedConv(nn.Module):
    """A convolution without bias, then a norm."""

    def __init__(self, conv: nn.Conv1d | nn.Conv2d, eps: float, *, affine: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.norm = BatchNorm(conv.out_channels, eps, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, ...] → [B, C', ...]."""
        out: Tensor = self.norm(self.conv(x))
        return out


class BatchNorm(nn.Module):
    """A norm by stored statistics, for any number of dims behind the channels.

    Unlike torch's own it has no counter, which only training reads.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float, *, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(channels)) if affine else None
        self.bias = nn.Parameter(torch.empty(channels)) if affine else None
        self.register_buffer("running_mean", torch.empty(channels))
        self.register_buffer("running_var", torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, ...] → [B, C, ...]."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def segment_mean(x: Tensor, segment: int) -> Tensor:
    """Replace every frame of ``x`` [B, C, T'] by the mean over its segment of that many frames.

    The last segment may be shorter; its mean is over the frames that it has.
    """
    means = F.avg_pool1d(x, segment, stride=segment, ceil_mode=True)  # [B, C, segments]
    return means.repeat_interleave(segment, dim=-1)[..., : x.shape[-1]]


def mean_and_std(x: Tensor) -> Tensor:
    """``x`` [B, C, T'] → [B, 2C]: means over time, then deviations with T' - 1, without eps."""
    return torch.cat([x.mean(dim=-1), x.std(dim=-1, correction=1)], dim=1)
