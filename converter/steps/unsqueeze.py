"""Put in a dim of size 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import StepError
from converter.spec import TensorSpec
from converter.steps.layout import (
    refuse_negative_dims,
    require_dim,
    require_place,
    require_whole_bytes,
    shape_text,
    with_dim,
    without_dim,
)
from converter.steps.runs import whole
from converter.steps.squeeze import Squeeze
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Unsqueeze:
    """Put in a dim of size 1 that becomes ``dim``.

    Shapes: ``[a, b] → [a, 1, b]`` for ``dim`` 1.
    Dtype: unchanged.
    Inverse: ``squeeze``.
    Raises RuleError for a negative dim, StepError when it lies beyond the end.

    >>> print(*Unsqueeze(dim=2).infer((TensorSpec("F32", (4, 8)),)))
    F32 [4, 8, 1]
    """

    name: ClassVar[str] = "unsqueeze"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    dim: int

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        require_whole_bytes(self.name, spec)
        require_place(self.name, self.dim, spec.shape)
        return (TensorSpec(spec.dtype, with_dim(spec.shape, self.dim, 1)),)

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        (tensor,) = inputs
        return (np.expand_dims(tensor, self.dim),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return (whole(inputs[0]),)

    @property
    def keeps_rows(self) -> bool:
        return self.dim > 0

    def inverse(self, inputs: Specs) -> Squeeze:
        return Squeeze(self.dim)

    def preimage(self, outputs: Shapes) -> Shapes:
        (shape,) = outputs
        require_dim(self.name, self.dim, shape)
        if shape[self.dim] != 1:
            raise StepError(
                f"unsqueeze: dim {self.dim} of the output is not of size 1",
                expected="size 1",
                got=shape_text(shape),
            )
        return (without_dim(shape, self.dim),)
