"""Put equal chunks of one dim in another order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.steps.layout import (
    chunk_size,
    inverse_permutation,
    movable,
    refuse_negative_dims,
    require_dim,
    require_permutation,
)
from converter.steps.runs import reordered_blocks
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class ReorderChunks:
    """Cut ``dim`` into equal chunks; chunk i of the output is chunk ``order[i]`` of the input.

    ``order`` [1, 0] swaps the halves.

    Shapes: unchanged.
    Dtype: unchanged.
    Inverse: ``reorder_chunks`` by the inverse permutation.
    Raises RuleError for a negative dim or when ``order`` is no permutation, StepError when the
    dim does not divide.

    >>> ReorderChunks(dim=0, order=(2, 0, 1)).inverse(())
    ReorderChunks(dim=0, order=(1, 2, 0))
    """

    name: ClassVar[str] = "reorder_chunks"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    dim: int
    order: tuple[int, ...]

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)
        require_permutation(self.name, "order", self.order)

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        size = movable(self.name, self.dim, spec)
        chunk_size(self.name, self.dim, size, len(self.order))
        return inputs

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        (tensor,) = inputs
        chunks = np.split(tensor, len(self.order), self.dim)
        return (np.concatenate([chunks[source] for source in self.order], self.dim),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        (spec,) = inputs
        piece = spec.shape[self.dim] // len(self.order)
        sizes = (piece,) * len(self.order)
        runs = reordered_blocks(spec.shape, self.dim, sizes, self.order)
        return None if runs is None else (runs,)

    @property
    def keeps_rows(self) -> bool:
        return self.dim > 0

    def inverse(self, inputs: Specs) -> ReorderChunks:
        return ReorderChunks(self.dim, inverse_permutation(self.order))

    def preimage(self, outputs: Shapes) -> Shapes:
        (shape,) = outputs
        require_dim(self.name, self.dim, shape)
        chunk_size(self.name, self.dim, shape[self.dim], len(self.order))
        return outputs
