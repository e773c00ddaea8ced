"""A toy model, small enough to be known by heart, and ways to convert it or a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from converter import api
from converter.conversion import Conversion
from converter.errors import ConverterError

HEAD = """
format: 1
model: toy
title: A toy with one of everything
origin: tests/toy.py
"""

RULES = f"""
{HEAD}
scope: net.
dtypes: [F32]
dims: {{layers: 2, hidden: 4}}
derived: {{vocab: hidden + 2}}
index: {{i: layers}}
conventions: {{norm_eps: 1e-5}}
rules:
  - from: embedding
    to: {{embedding.weight: [vocab, hidden]}}
  - from: layers.{{i}}.qkv
    steps:
      - split: {{dim: 0, sizes: [hidden, hidden, hidden]}}
    to:
      blocks.{{i}}.q.weight: [hidden, hidden]
      blocks.{{i}}.k.weight: [hidden, hidden]
      blocks.{{i}}.v.weight: [hidden, hidden]
  - from: ["layers.{{i}}.g", "layers.{{i}}.v"]
    steps:
      - fold_weight_norm: {{dim: 0}}
    to:
      blocks.{{i}}.out.weight: [hidden, hidden]
  - from: layers.{{i}}.norm
    absent: ones
    to:
      blocks.{{i}}.norm.weight: [hidden]
  - from: steps_taken
    dtypes: [I64]
    to: {{steps_taken: []}}
  - from: mask
    dtypes: [BOOL]
    to: {{mask: [3]}}
  - from: nothing
    to: {{nothing: [0, hidden]}}
alias:
  - {{name: head.weight, of: embedding.weight, because: the head is tied}}
drop:
  - {{name: positions, expect: arange, because: rebuilt by the network}}
  - {{name: head, expect: {{equals: embedding}}, because: the head is tied}}
"""


def toy_tensors() -> dict[str, Tensor]:
    """Return a checkpoint for ``RULES``: no norms, and one tensor that is out of scope."""
    count = iter(range(1, 100))

    def tensor(*shape: int) -> Tensor:
        return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape) + next(
            count
        )

    embedding = tensor(6, 4)
    tensors = {
        "embedding": embedding,
        "head": embedding.clone(),
        "steps_taken": torch.tensor(1000),
        "mask": torch.tensor([True, False, True]),
        "nothing": torch.empty(0, 4),
        "positions": torch.arange(16),
    }
    for i in range(2):
        tensors[f"layers.{i}.qkv"] = tensor(12, 4)
        tensors[f"layers.{i}.g"] = tensor(4, 1)
        tensors[f"layers.{i}.v"] = tensor(4, 4)
    return {f"net.{name}": item for name, item in tensors.items()} | {"optimizer": tensor(3)}


def write_rules(folder: Path, text: str = RULES) -> Path:
    """Write a rule file; what lacks a format is given the head of one."""
    path = folder / "toy.yaml"
    path.write_text(text if "format: 1" in text else HEAD + text)
    return path


def write_source(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write a checkpoint of one file."""
    path = folder / "toy.safetensors"
    save_file(dict(tensors), path)
    return path


def convert(
    folder: Path, tensors: Mapping[str, Tensor], rules: str = RULES, **options: Any
) -> Conversion:
    """Convert ``tensors`` by ``rules`` into ``folder / "out"``."""
    paths = write_source(folder, tensors), folder / "out"
    return api.convert(*paths, rules=write_rules(folder, rules), **options)


def refusal(
    folder: Path, tensors: Mapping[str, Tensor], rules: str = RULES, **options: Any
) -> ConverterError:
    """Return why ``tensors`` are not converted, of which nothing may be left."""
    with pytest.raises(ConverterError) as caught:
        convert(folder, tensors, rules, **options)
    assert {path.name for path in folder.iterdir()} == {"toy.safetensors", "toy.yaml"}
    return caught.value


def one(dtype: str, shape: str, more: str = "") -> str:
    """Return rules for the one tensor ``w``; ``more`` is added to its rule."""
    return f"dtypes: [{dtype}]\nrules:\n  - from: w\n    to: {{w: {shape}}}\n    {more}\n"
