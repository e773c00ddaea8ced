"""Lay groups that lie end to end along one dim out by turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from converter.spec import Shape
from converter.steps.blocks import (
    Grid,
    blocks_per_group,
    require_blocks,
    transposed,
    transposed_runs,
)
from converter.steps.layout import movable, require_dim
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors

if TYPE_CHECKING:
    from converter.steps.deinterleave import Deinterleave


@dataclass(frozen=True, slots=True)
class Interleave:
    """Take a block of ``size`` elements of ``dim`` from each of ``groups`` by turns.

    ``[q0 q1 k0 k1]`` becomes ``[q0 k0 q1 k1]`` for 2 groups. With ``stop``, the groups end there
    and what lies behind stays.

    Shapes: unchanged.
    Dtype: unchanged.
    Inverse: ``deinterleave``.
    Raises RuleError for a negative dim or numbers below 1, StepError when the dim does not divide.

    >>> Interleave(dim=0, groups=2).inverse(())
    Deinterleave(dim=0, groups=2, size=1, stop=None)
    """

    name: ClassVar[str] = "interleave"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    dim: int
    groups: int
    size: int = 1
    stop: int | None = None

    def __post_init__(self) -> None:
        require_blocks(self.name, self.dim, self.groups, self.size, self.stop)

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        movable(self.name, self.dim, spec)
        self._grid(spec.shape)
        return inputs

    def apply(self, inputs: Tensors) -> Tensors:
        (tensor,) = inputs
        return (transposed(tensor, self._grid(tensor.shape)),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        (spec,) = inputs
        runs = transposed_runs(spec.shape, self._grid(spec.shape))
        return None if runs is None else (runs,)

    @property
    def keeps_rows(self) -> bool:
        return self.dim > 0

    def inverse(self, inputs: Specs) -> Deinterleave:
        # Imported here because deinterleave, which undoes this, imports this module.
        from converter.steps.deinterleave import Deinterleave

        return Deinterleave(self.dim, self.groups, self.size, self.stop)

    def preimage(self, outputs: Shapes) -> Shapes:
        (shape,) = outputs
        require_dim(self.name, self.dim, shape)
        self._grid(shape)
        return outputs

    def _grid(self, shape: Shape) -> Grid:
        blocks = blocks_per_group(self.name, shape, self.dim, self.groups, self.size, self.stop)
        end = blocks * self.groups * self.size
        return Grid(self.dim, self.groups, blocks, self.size, end)
