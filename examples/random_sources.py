"""Checkpoints for a bundle file: every tensor that its rules name, with random values.

Sizes follow from the rules alone. What training leaves positive is positive here, and buffers
that have a closed form have it, so that networks made of these run; they have learned nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from converter.bundle_members import MemberRules, resolve_members
from converter.rules import bundle_file as bundle_files
from converter.rules.expand import expand


def make_sources(bundle: Path, folder: Path) -> list[Path]:
    """Write every source of a bundle below ``folder``; return their paths."""
    bundle_file = bundle_files.load(bundle)
    members = resolve_members(bundle_file, dims={}, source_prefixes={})
    generator = torch.Generator().manual_seed(0)
    paths = []
    for name, source in bundle_file.sources.items():
        tensors: dict[str, Tensor] = {}
        for member in bundle_file.members_of(name):
            shapes = source_shapes(members[member])
            tensors |= {tensor: value_of(tensor, s, generator) for tensor, s in shapes.items()}
            tensors |= dropped_tensors(members[member])
        paths.append(folder / source.file)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, paths[-1])
    return paths


def source_shapes(member: MemberRules) -> Mapping[str, tuple[int, ...]]:
    """Return the shape that the rules ask of each tensor."""
    shapes: dict[str, tuple[int, ...]] = {}
    for unit in expand(member.rule_file, member.settings).units:
        assert unit.form.source_shapes is not None, "these steps leave the shape open"
        shapes.update(zip(unit.sources, unit.form.source_shapes, strict=True))
    return shapes


def dropped_tensors(member: MemberRules) -> Mapping[str, Tensor]:
    """Return something for each tensor that must be there to be left out."""
    drops = expand(member.rule_file, member.settings).drops
    return {
        drop.name: torch.arange(4) if drop.drop.expect == "arange" else torch.ones(1)
        for drop in drops
        if not drop.drop.optional
    }


def value_of(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return random values, or the closed form that a tensor of this name has."""
    leaf = name.rpartition(".")[2]
    random = torch.randn(shape, generator=generator)
    if leaf == "pe":  # [1, positions, width]: sines and cosines, by turns
        return torch.stack([*sinusoids(shape[1], shape[2])], dim=-1).reshape(shape)
    if leaf == "freqs":
        return torch.pow(10000, -torch.arange(len(random)) / len(random))
    if leaf == "filter":  # a low-pass that keeps a constant what it is
        window = torch.hann_window(shape[-1] + 2, periodic=False)[1:-1]
        return (window / window.sum()).expand(shape).clone()
    if leaf in ("running_var", "var", "weight_g"):
        return random.abs() + 0.5
    if len(shape) == 1:
        values = 0.1 * random + (leaf in ("weight", "gamma"))
        if name == "mel_head.bias":
            values[-2:] = -100  # neither start nor stop is ever said
        return values
    scaled: Tensor = random / random[0].numel() ** 0.5
    return scaled


def sinusoids(positions: int, width: int) -> Iterator[Tensor]:
    """Yield the sines and the cosines of every position, each [positions, width / 2]."""
    rates = torch.pow(10000, -torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * rates
    yield angles.sin()
    yield angles.cos()
