"""The semantic codec of MaskGCT: speech features as one code per frame, and back.

Source: Amphion d3de90f, RepCodec (arXiv:2409.00750), as index-tts ee40fa7 uses it: one codebook,
and as many codes as frames.

Shapes: B rows, T frames, D hidden, W width, C codebook width, V codes. Activations have the
weights' dtype; vectors are matched to the codebook in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from converter.errors import UsageError
from converter.manifest import ModelRecord
from converter.runtime.networks.config import read_config
from converter.runtime.networks.convnext import ConvNeXtBlock

CONVENTIONS: Mapping[str, object] = {
    "norm": ("layer_norm",),
    "norm_eps": float,
    "activation": ("gelu_erf",),
    "conv_padding": ("zeros",),
    "layer_scale": ("branch",),
    "codebook_match": ("cosine",),
}


@dataclass(frozen=True, slots=True)
class SemanticCodecConfig:
    """Dims, and the one number among the conventions; ``decoder`` is 0 or 1."""

    layers: int
    hidden: int
    width: int
    ffn: int
    kernel: int
    codes: int
    codebook_dim: int
    decoder: int
    norm_eps: float

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise UsageError("a convolution of even kernel cannot give as many frames as it takes")


@dataclass(frozen=True, slots=True)
class SemanticCodes:
    """``codes`` [B, T], int64 below V; ``quantized`` [B, T, D], what the codes stand for."""

    codes: Tensor
    quantized: Tensor


def build(model: ModelRecord) -> nn.Module:
    """Build the codec that a manifest describes; its weights are not initialised for use."""
    return SemanticCodec(read_config(SemanticCodecConfig, model))


class SemanticCodec(nn.Module):
    """Encoder and quantizer, and the decoder where the dims ask for it."""

    def __init__(self, config: SemanticCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Backbone(config)
        self.quantizer = Quantizer(config)
        self.decoder = Backbone(config) if config.decoder else None

    def forward(self, features: Tensor) -> SemanticCodes:
        """Return the codes of ``features``, as ``encode`` does."""
        return self.encode(features)

    def encode(self, features: Tensor) -> SemanticCodes:
        """Return the codes of ``features`` [B, T, D] and what they stand for.

        ``features`` are wav2vec-bert's hidden states, standardised; there is no padding.
        """
        self._check(features, "features")
        latents = self.quantizer.in_proj(self.encoder(features).mT).mT  # [B, T, C]
        codes = self.quantizer.match(latents)  # [B, T]
        return SemanticCodes(codes, self.vq2emb(codes).mT)

    def vq2emb(self, codes: Tensor) -> Tensor:
        """Return what ``codes`` [B, T] stand for, channels first as in the original: [B, D, T]."""
        rows = self.quantizer.codebook(codes)  # [B, T, C]
        embedded: Tensor = self.quantizer.out_proj(rows.mT)
        return embedded

    def decode(self, quantized: Tensor) -> Tensor:
        """Return features [B, T, D] like those that were encoded into ``quantized`` [B, T, D]."""
        if self.decoder is None:
            raise UsageError(
                "this codec was converted without its decoder", hint="convert the variant 'full'"
            )
        self._check(quantized, "quantized")
        features: Tensor = self.decoder(quantized)
        return features

    def _check(self, x: Tensor, name: str) -> None:
        if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != self.config.hidden:
            raise UsageError(
                f"{name} of another shape",
                expected=f"[B, T, {self.config.hidden}], T at least 1",
                got=str(list(x.shape)),
            )


class Backbone(nn.Module):
    """A Vocos backbone: a convolution, ConvNeXt blocks between two norms, a projection."""

    def __init__(self, config: SemanticCodecConfig) -> None:
        super().__init__()
        hidden, width, kernel = config.hidden, config.width, config.kernel
        self.input_conv = nn.Conv1d(hidden, width, kernel, padding=kernel // 2)
        self.input_norm = nn.LayerNorm(width, config.norm_eps)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(width, config.ffn, kernel, config.norm_eps) for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(width, config.norm_eps)
        self.out_proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, T, D]."""
        x = self.input_norm(self.input_conv(x.mT).mT)  # [B, T, W]
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.out_proj(self.final_norm(x))
        return out


class Quantizer(nn.Module):
    """The codebook, and the projections around it, which are convolutions of kernel 1."""

    def __init__(self, config: SemanticCodecConfig) -> None:
        super().__init__()
        self.in_proj = nn.Conv1d(config.hidden, config.codebook_dim, 1)
        self.codebook = nn.Embedding(config.codes, config.codebook_dim)
        self.out_proj = nn.Conv1d(config.codebook_dim, config.hidden, 1)

    def match(self, latents: Tensor) -> Tensor:
        """Return for each of ``latents`` [B, T, C] the row of the codebook nearest in direction.

        Of unit vectors, the nearest is the one with the largest product.
        """
        rows = F.normalize(self.codebook.weight.float(), dim=-1)  # [V, C]
        products = F.normalize(latents.float(), dim=-1) @ rows.mT  # [B, T, V]
        return products.argmax(dim=-1)
