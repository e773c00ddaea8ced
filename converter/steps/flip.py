"""Reverse the order along one dim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.steps.layout import movable, refuse_negative_dims, require_dim
from converter.steps.runs import MAX_RUNS, reordered_blocks
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Flip:
    """Put the elements of ``dim`` in the opposite order.

    Shapes: unchanged.
    Dtype: unchanged.
    Inverse: itself.
    Raises RuleError for a negative dim, StepError when the dim is absent.

    >>> Flip(dim=0).inverse(())
    Flip(dim=0)
    """

    name: ClassVar[str] = "flip"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    dim: int

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)

    def infer(self, inputs: Specs) -> Specs:
        movable(self.name, self.dim, inputs[0])
        return inputs

    def apply(self, inputs: Tensors) -> Tensors:
        (tensor,) = inputs
        return (tensor[(*((slice(None),) * self.dim), slice(None, None, -1))],)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        (spec,) = inputs
        size = spec.shape[self.dim]
        if size > MAX_RUNS:
            return None
        runs = reordered_blocks(spec.shape, self.dim, (1,) * size, range(size)[::-1])
        return None if runs is None else (runs,)

    @property
    def keeps_rows(self) -> bool:
        return self.dim > 0

    def inverse(self, inputs: Specs) -> Flip:
        return self

    def preimage(self, outputs: Shapes) -> Shapes:
        (shape,) = outputs
        require_dim(self.name, self.dim, shape)
        return outputs
