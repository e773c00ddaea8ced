"""A checkpoint of some MB and its rules: large enough that something can happen meanwhile."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

RULES = """
format: 1
model: blocks
title: Blocks of linear layers
origin: these tests
dtypes: [F32]
dims: {layers: 6, hidden: 256}
index: {i: layers}
rules:
  - from: layers.{i}.qkv
    steps:
      - split: {dim: 0, sizes: [hidden, hidden, hidden]}
    to:
      blocks.{i}.q.weight: [hidden, hidden]
      blocks.{i}.k.weight: [hidden, hidden]
      blocks.{i}.v.weight: [hidden, hidden]
  - from: ["layers.{i}.g", "layers.{i}.v"]
    steps:
      - fold_weight_norm: {dim: 0}
    to:
      blocks.{i}.out.weight: [hidden, hidden]
"""


BUNDLE = """
format: 1
bundle: pair
title: Two models of blocks
sources:
  front: {file: front.safetensors}
  back: {file: back.safetensors}
members:
  front: {source: front, rules: blocks.yaml, dims: {layers: 3}}
  back: {source: back, rules: blocks.yaml, dims: {layers: 3}}
agree:
  - {that: front.hidden == back.hidden, because: one reads the other}
"""


def tensors(seed: int, layers: int = 6) -> dict[str, Tensor]:
    """Return weights for ``RULES``, a MiB for each layer."""
    random = torch.Generator().manual_seed(seed)
    shapes = {"qkv": (768, 256), "g": (256, 1), "v": (256, 256)}
    return {
        f"layers.{i}.{name}": torch.randn(shape, generator=random)
        for i in range(layers)
        for name, shape in shapes.items()
    }


def write_models(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Write checkpoints ``a`` and ``b`` of one model; return them, and how to convert one."""
    rules = _write_rules(folder)
    sources = {name: folder / name / "blocks.safetensors" for name in "ab"}
    for seed, source in enumerate(sources.values()):
        source.parent.mkdir()
        save_file(tensors(seed), source)
    return sources, ["--rules", str(rules), "--max-shard-size", "2MB", "--jobs", "2"]


def write_bundles(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Write folders ``a`` and ``b``, sources of one bundle; return them, and how to convert one."""
    bundle = _write_rules(folder).with_name("pair.yaml")
    bundle.write_text(BUNDLE.lstrip())
    sources = {name: folder / name for name in "ab"}
    for seed, source in enumerate(sources.values()):
        source.mkdir()
        save_file(tensors(2 * seed, layers=3), source / "front.safetensors")
        save_file(tensors(2 * seed + 1, layers=3), source / "back.safetensors")
    return sources, ["--bundle", str(bundle), "--jobs", "2"]


def _write_rules(folder: Path) -> Path:
    path = folder / "blocks.yaml"
    path.write_text(RULES.lstrip())
    return path
