"""All canonical tensors, those that are alike but for numbers together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from converter.fold import few, fold_names, skeleton
from converter.manifest import TensorRecord
from converter.page.lineage import step_text
from converter.page.stacks import Stack

_MOST_PATTERNS = 3


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors of one dtype, shape and chain of steps, whose names differ in numbers alone."""

    pattern: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    steps: tuple[str, ...]
    tensors: tuple[TensorRecord, ...]


def groups_of(tensors: Iterable[TensorRecord]) -> list[TensorGroup]:
    """Return the groups, in order of first appearance."""
    grouped: dict[tuple[object, ...], list[TensorRecord]] = {}
    for tensor in tensors:
        steps = tuple(step_text(step) for step in tensor.steps)
        alike = (skeleton(tensor.name), tensor.dtype, tensor.shape, steps)
        grouped.setdefault(alike, []).append(tensor)
    return [_group(group) for group in grouped.values()]


def kind_of_each(stacks: Iterable[Stack], rest: Iterable[TensorRecord]) -> dict[str, str]:
    """Return by name what a tensor is, whatever its layer."""
    kinds = {tensor.name: tensor.name for tensor in rest}
    for stack in stacks:
        for (kind, _), tensor in stack.tensors.items():
            kinds[tensor.name] = f"{stack.name}.{kind}"
    return kinds


def _group(tensors: list[TensorRecord]) -> TensorGroup:
    patterns = few(fold_names(tensor.name for tensor in tensors), _MOST_PATTERNS)
    first = tensors[0]
    return TensorGroup(
        ", ".join(patterns),
        first.dtype,
        first.shape,
        sum(tensor.size for tensor in tensors),
        tuple(step_text(step) for step in first.steps),
        tuple(tensors),
    )
