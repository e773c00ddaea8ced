"""Split a tensor into a number of equal pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError
from converter.spec import TensorSpec
from converter.steps.concat import Concat
from converter.steps.layout import (
    chunk_size,
    common_shape,
    movable,
    refuse_negative_dims,
    require_count,
    require_dim,
    require_listable,
    with_size,
)
from converter.steps.runs import cuts
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Chunk:
    """Cut ``dim`` into ``chunks`` equal consecutive pieces.

    Unlike ``torch.chunk``, never fewer pieces and never a smaller last one.

    Shapes: ``[…, n, …] → […, n / chunks, …]``, ``chunks`` times.
    Dtype: unchanged.
    Inverse: ``concat``.
    Raises RuleError for a negative dim or fewer than 1 chunk, StepError when it does not divide.

    >>> print(*Chunk(dim=0, chunks=2).infer((TensorSpec("F32", (6, 8)),)))
    F32 [3, 8] F32 [3, 8]
    """

    name: ClassVar[str] = "chunk"
    takes: ClassVar[Takes] = "each"

    dim: int
    chunks: int

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)
        if self.chunks < 1:
            raise RuleError("chunk: no chunks", expected="1 or more", got=str(self.chunks))

    @property
    def fan_out(self) -> int:
        """One output per chunk."""
        return self.chunks

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        size = movable(self.name, self.dim, spec)
        piece = chunk_size(self.name, self.dim, size, self.chunks)
        require_listable(self.name, self.chunks)
        return (TensorSpec(spec.dtype, with_size(spec.shape, self.dim, piece)),) * self.chunks

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        (tensor,) = inputs
        return np.split(tensor, self.chunks, self.dim)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        (spec,) = inputs
        piece = spec.shape[self.dim] // self.chunks
        return cuts(spec.shape, self.dim, (piece,) * self.chunks)

    @property
    def keeps_rows(self) -> bool:
        return self.dim > 0

    def inverse(self, inputs: Specs) -> Concat:
        return Concat(self.dim)

    def preimage(self, outputs: Shapes) -> Shapes:
        require_count(self.name, self.chunks, outputs)
        piece = common_shape(self.name, outputs)
        require_dim(self.name, self.dim, piece)
        return (with_size(piece, self.dim, piece[self.dim] * self.chunks),)
