"""Gather what lies by turns along one dim into groups that lie end to end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.spec import Shape
from converter.steps.blocks import (
    Grid,
    blocks_per_group,
    require_blocks,
    transposed,
    transposed_runs,
)
from converter.steps.interleave import Interleave
from converter.steps.layout import movable, require_dim
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Deinterleave:
    """Deal blocks of ``size`` elements of ``dim`` out to ``groups`` by turns.

    ``[q0 k0 q1 k1]`` becomes ``[q0 q1 k0 k1]`` for 2 groups. With ``stop``, the blocks end there
    and what lies behind stays.

    Shapes: unchanged.
    Dtype: unchanged.
    Inverse: ``interleave``.
    Raises RuleError for a negative dim or numbers below 1, StepError when the dim does not divide.

    >>> Deinterleave(dim=0, groups=3, size=64).inverse(())
    Interleave(dim=0, groups=3, size=64, stop=None)
    """

    name: ClassVar[str] = "deinterleave"
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

    def inverse(self, inputs: Specs) -> Interleave:
        return Interleave(self.dim, self.groups, self.size, self.stop)

    def preimage(self, outputs: Shapes) -> Shapes:
        (shape,) = outputs
        require_dim(self.name, self.dim, shape)
        self._grid(shape)
        return outputs

    def _grid(self, shape: Shape) -> Grid:
        blocks = blocks_per_group(self.name, shape, self.dim, self.groups, self.size, self.stop)
        end = blocks * self.groups * self.size
        return Grid(self.dim, blocks, self.groups, self.size, end)
