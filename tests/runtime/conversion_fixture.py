"""Golden checkpoints converted as a user converts them, and networks of other sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from canonical_fixture import assert_same_bytes
from parity import Difference
from reference_weights import GOLDEN, Tensors, random_weights
from torch import nn

from converter import api
from converter.dims import read_dims
from converter.manifest import Dim, ModelRecord
from converter.rules.expand import expand
from converter.rules.settings import resolve
from converter.runtime.networks import build_network

MODELS = Path(__file__).parents[1] / "models"


def convert_golden(
    out: Path,
    golden: str,
    model: str,
    dims: str = "golden-dims",
    *,
    variant: Sequence[str] = (),
    scope: str | None = None,
) -> Path:
    """Convert a golden checkpoint with the dims of a file in ``tests/models``; return ``out``."""
    checkpoint = GOLDEN / golden / "checkpoint.safetensors"
    sizes = read_dims(MODELS / model / f"{dims}.yaml", [])
    api.convert(checkpoint, out, jobs=1, model=model, variant=variant, dims=sizes, scope=scope)
    return out


def described(
    model: str, variant: Sequence[str] = (), dims: Mapping[str, Dim] | None = None
) -> tuple[ModelRecord, dict[str, tuple[int, ...]]]:
    """Return what a manifest would say of a model, and the shapes that its rule file declares."""
    rule_file = api.model(model)
    settings = resolve(rule_file, variant=variant, dims=dims)
    shapes = dict(target for unit in expand(rule_file, settings).units for target in unit.targets)
    record = ModelRecord(
        name=model,
        title=rule_file.title,
        origin=rule_file.origin,
        variant=settings.variant,
        dims=settings.dims,
        conventions=settings.conventions,
        audio=settings.audio,
    )
    return record, shapes


def untrained(model: str, dims: Mapping[str, Dim], dtype: torch.dtype) -> nn.Module:
    """Return a network of another size with random weights, whose tensors are those declared."""
    record, shapes = described(model, dims=dims)
    network = build_network(record)
    held = dict(network.named_parameters()) | dict(network.named_buffers())  # ties count once
    assert {name: tuple(tensor.shape) for name, tensor in held.items()} == shapes
    network.load_state_dict(random_weights(network), assign=True)
    return network.eval().requires_grad_(requires_grad=False).to(dtype)


def assert_same_tensors(got: Tensors, expected: Tensors) -> None:
    """Assert equal names, dtypes, shapes and bytes, in whatever order."""
    assert_same_bytes(dict(sorted(got.items())), dict(sorted(expected.items())))


def failing(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences that are not allowed."""
    return [difference for difference in differences if not difference.holds]


def without_effect(network: nn.Module, compared: Callable[[], Sequence[Difference]]) -> set[str]:
    """Return the tensors whose sign can change and leave all that is compared within bounds."""

    def is_unseen(tensor: torch.Tensor) -> bool:
        tensor.neg_()
        unseen = not failing(compared())
        tensor.neg_()
        return unseen

    return {name for name, tensor in network.state_dict().items() if is_unseen(tensor)}
