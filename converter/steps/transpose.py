"""Exchange two dims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError
from converter.spec import Shape, TensorSpec
from converter.steps.layout import refuse_negative_dims, require_dim, require_whole_bytes
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Transpose:
    """Exchange the two ``dims``.

    Shapes: ``[a, b] → [b, a]`` for the default ``dims``.
    Dtype: unchanged.
    Inverse: itself.
    Raises RuleError for dims that are negative or not two, StepError when a dim is absent.

    >>> print(*Transpose().infer((TensorSpec("F32", (4, 8)),)))
    F32 [8, 4]
    """

    name: ClassVar[str] = "transpose"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    dims: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, *self.dims)
        if len(self.dims) != 2 or self.dims[0] == self.dims[1]:
            raise RuleError(
                "transpose: dims are not two",
                expected="two different dims",
                got=str(list(self.dims)),
                hint="permute orders more than two dims",
            )

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        require_whole_bytes(self.name, spec)
        return (TensorSpec(spec.dtype, self._exchanged(spec.shape)),)

    def apply(self, inputs: Tensors) -> Tensors:
        (tensor,) = inputs
        return (tensor.swapaxes(*self.dims),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return None

    @property
    def keeps_rows(self) -> bool:
        return 0 not in self.dims

    def inverse(self, inputs: Specs) -> Transpose:
        return self

    def preimage(self, outputs: Shapes) -> Shapes:
        (shape,) = outputs
        return (self._exchanged(shape),)

    def _exchanged(self, shape: Shape) -> Shape:
        require_dim(self.name, max(self.dims), shape)
        sizes = list(shape)
        first, second = self.dims
        sizes[first], sizes[second] = sizes[second], sizes[first]
        return tuple(sizes)
