"""Read the same elements, in the same order, under another shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.layout import require_whole_bytes, shape_text
from converter.steps.runs import whole
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Reshape:
    """Give the elements, in row-major order, the stated ``shape``; no size is inferred.

    Shapes: any of equally many elements ``→ shape``.
    Dtype: unchanged.
    Inverse: ``reshape`` to the shape of the input.
    Raises RuleError for a negative size, StepError when the numbers of elements differ.

    >>> print(*Reshape(shape=(4, 2)).infer((TensorSpec("F32", (8,)),)))
    F32 [4, 2]
    """

    name: ClassVar[str] = "reshape"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if min(self.shape, default=0) < 0:
            raise RuleError(
                "reshape: a negative size",
                expected="0 or more",
                got=shape_text(self.shape),
                hint="state every size; none is inferred",
            )

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        require_whole_bytes(self.name, spec)
        if spec.numel != math.prod(self.shape):
            raise StepError(
                "reshape: the numbers of elements differ",
                expected=f"{math.prod(self.shape)} elements, for {shape_text(self.shape)}",
                got=f"{spec.numel} elements, of {spec}",
            )
        return (TensorSpec(spec.dtype, self.shape),)

    def apply(self, inputs: Tensors) -> Tensors:
        (tensor,) = inputs
        return (tensor.reshape(self.shape),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return (whole(inputs[0]),)

    @property
    def keeps_rows(self) -> bool:
        return False

    def inverse(self, inputs: Specs) -> Reshape:
        (spec,) = inputs
        return Reshape(spec.shape)

    def preimage(self, outputs: Shapes) -> Shapes | None:
        (shape,) = outputs
        if shape != self.shape:
            raise StepError(
                "reshape: the output is not of the stated shape",
                expected=shape_text(self.shape),
                got=shape_text(shape),
            )
        return None
