"""Soprano decoder: a Vocos that turns the language model's hidden states into a waveform.

Source: soprano 12fac06, after Vocos (arXiv:2306.00814), with the blocks of ``convnext``. Tokens are
stretched to frames, convolved, and read as the spectra of overlapping windows.

Shapes: B rows, T tokens, F = upscale·(T - 1) + 1 frames, C input channels, D hidden, N n_fft.
Activations have the weights' dtype; spectra and waveform are float32.
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
from converter.runtime.networks.convnext import ConvNeXtBlock

CONVENTIONS: Mapping[str, object] = {
    "interpolation": ("linear_align_corners",),
    "conv_padding": ("zeros",),
    "norm": ("layer_norm",),
    "norm_eps": float,
    "activation": ("gelu_erf",),
    "layer_scale": ("branch",),
    "spectrum_rows": ("log_magnitude_phase",),
    "magnitude_max": float,
    "edge_bins": ("zero",),
}


@dataclass(frozen=True, slots=True)
class SopranoDecoderConfig:
    """Dims, and the numbers among the conventions; ``hop_length`` and ``n_fft`` are in samples."""

    layers: int
    hidden: int
    input: int
    ffn: int
    input_kernel: int
    conv_kernel: int
    upscale: int
    n_fft: int
    hop_length: int
    norm_eps: float
    magnitude_max: float

    def __post_init__(self) -> None:
        if self.input_kernel % 2 == 0 or self.conv_kernel % 2 == 0:
            raise UsageError("a convolution of even kernel cannot give as many frames as it takes")
        if self.upscale == 0:
            raise UsageError("upscale 0 makes no frames")
        if self.n_fft == 0 or self.n_fft % 2:
            raise UsageError(f"n_fft {self.n_fft} has no bin at half the sample rate")
        if not 0 < self.hop_length < self.n_fft:
            raise UsageError(f"hop_length {self.hop_length} is not between 0 and n_fft")


def build(model: ModelRecord) -> nn.Module:
    """Build the decoder that a manifest describes; its weights are not initialised for use."""
    return SopranoDecoder(read_config(SopranoDecoderConfig, model))


class SopranoDecoder(nn.Module):
    """An input convolution, ConvNeXt blocks, a spectral head, and an inverse STFT."""

    window: Tensor

    def __init__(self, config: SopranoDecoderConfig) -> None:
        super().__init__()
        hidden, bins = config.hidden, config.n_fft // 2 + 1
        self.config = config
        self.input_conv = nn.Conv1d(
            config.input, hidden, config.input_kernel, padding=config.input_kernel // 2
        )
        self.input_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(hidden, config.ffn, config.conv_kernel, config.norm_eps)
            for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.spectral_head = nn.Linear(hidden, 2 * bins)
        self.register_buffer("window", torch.empty(config.n_fft))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the waveform [B, hop_length · upscale · (T - 1)], float32.

        ``hidden_states`` [B, C, T] are the language model's, of the audio tokens.
        """
        self._check(hidden_states)
        frames = self.config.upscale * (hidden_states.shape[-1] - 1) + 1
        x = F.interpolate(hidden_states, size=frames, mode="linear", align_corners=True)
        x = self.input_norm(self.input_conv(x).mT)  # [B, F, D]
        for block in self.blocks:
            x = block(x)
        rows = self.spectral_head(self.final_norm(x))  # [B, F, N + 2]
        spectrum = spectrum_of(rows, self.config.magnitude_max)
        return inverse_stft(spectrum, self.window.float(), self.config.hop_length)

    def _check(self, hidden_states: Tensor) -> None:
        sizes = list(hidden_states.shape)
        if len(sizes) != 3 or sizes[1] != self.config.input or sizes[2] == 0:
            raise UsageError(
                "hidden_states have another shape",
                expected=f"[B, {self.config.input}, T], T at least 1",
                got=str(sizes),
            )


def spectrum_of(rows: Tensor, magnitude_max: float) -> Tensor:
    """Return the spectrum [B, F, N/2 + 1], complex64, whose first and last bin are zero.

    ``rows`` [B, F, N + 2] are the logarithms of all magnitudes, then all phases, in radians.
    """
    log_magnitude, phase = rows.float().chunk(2, dim=-1)
    magnitude = log_magnitude.exp().clamp(max=magnitude_max)
    spectrum = torch.polar(magnitude, phase)
    return F.pad(spectrum[..., 1:-1], (1, 1))


def inverse_stft(spectrum: Tensor, window: Tensor, hop_length: int) -> Tensor:
    """Return the samples [B, hop_length · (F - 1)] from the middle of the first frame on.

    ``spectrum`` [B, F, N/2 + 1]; ``window`` [N] weighs each frame, and its squares are divided
    out of the sum of all frames.
    """
    n_fft = len(window)
    frames = torch.fft.irfft(spectrum, n_fft) * window  # [B, F, N]
    weights = window.square().expand(1, frames.shape[1], -1)  # [1, F, N]
    samples = overlap_add(frames, hop_length) / overlap_add(weights, hop_length)
    return samples[:, n_fft // 2 : -(n_fft // 2)]


def overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """Sum ``frames`` [B, F, N], each ``hop_length`` behind the one before it → [B, samples]."""
    _, count, length = frames.shape
    total = length + hop_length * (count - 1)
    return F.fold(frames.mT, (1, total), (1, length), stride=(1, hop_length))[:, 0, 0]
