"""A tiny checkpoint as the field writes them: fused, weight-normed, oddly named, with baggage."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

RULES = Path(__file__).with_name("tiny.yaml")


def make_checkpoint(path: Path, *, layers: int = 2, hidden: int = 8) -> Path:
    """Write the checkpoint that ``tiny.yaml`` is made for to ``path``, and return it."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "net.position_ids": torch.arange(16),
        "optimizer.step": torch.tensor([1000]),
    }
    for i in range(layers):
        shapes = {
            "wqkv.weight": (3 * hidden, hidden),
            "out.weight_g": (hidden, 1),
            "out.weight_v": (hidden, hidden),
            "norm.gamma": (hidden,),
        }
        for name, shape in shapes.items():
            tensors[f"net.layers.{i}.{name}"] = torch.randn(shape, generator=generator)
    save_file(tensors, path)
    return path
