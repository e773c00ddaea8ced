"""The published Whispers by their configurations, without values: names and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from small_whisper import Size, original, stored

# Layers of encoder and decoder, hidden, heads: the config.json of each repository.
PUBLISHED: Mapping[str, tuple[int, int, int, int]] = {
    "tiny": (4, 4, 384, 6),
    "base": (6, 6, 512, 8),
    "small": (12, 12, 768, 12),
    "medium": (24, 24, 1024, 16),
    "large-v1": (32, 32, 1280, 20),
    "large-v2": (32, 32, 1280, 20),
    "large-v3": (32, 32, 1280, 20),
    "large-v3-turbo": (32, 4, 1280, 20),
}
ENGLISH = ("tiny", "base", "small", "medium")


def published(name: str, *, english: bool = False) -> Size:
    """Return the dims of a published checkpoint; those of large-v3 hear 128 mels."""
    encoder_layers, decoder_layers, hidden, heads = PUBLISHED[name]
    latest = name.startswith("large-v3")
    return Size(
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        hidden=hidden,
        encoder_heads=heads,
        decoder_heads=heads,
        encoder_ffn=4 * hidden,
        decoder_ffn=4 * hidden,
        mels=128 if latest else 80,
        encoder_positions=1500,
        decoder_positions=448,
        vocab=51866 if latest else 51865 - english,
    )


def shapes(size: Size) -> dict[str, list[int]]:
    """Return name → shape of what transformers saves of a model of any size."""
    with torch.device("meta"):
        model = original(size, seed=0)
    return {name: list(tensor.shape) for name, tensor in stored(model).items()}
