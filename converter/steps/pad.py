"""Add elements of one value at the ends of one dim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.dtypes import NUMERIC, NUMERIC_TEXT, dtype_name, lacks
from converter.steps.layout import movable, refuse_negative_dims, require_dim, with_size
from converter.steps.slice_ import Slice
from converter.steps.step import Number, Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Pad:
    """Add ``before`` elements in front of ``dim`` and ``after`` behind it, each ``value``.

    Shapes: ``[…, n, …] → […, before + n + after, …]``.
    Dtype: unchanged. A float rounds ``value`` once; an integer or boolean takes integers only.
    Inverse: ``slice``; none when ``dim`` is empty.
    Raises RuleError for a negative dim or number, StepError when the dim is absent, or the dtype
    does not hold ``value``.

    >>> print(*Pad(dim=0, before=0, after=2, value=0).infer((TensorSpec("F32", (6, 8)),)))
    F32 [8, 8]
    """

    name: ClassVar[str] = "pad"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    dim: int
    before: int
    after: int
    value: Number

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)
        if min(self.before, self.after) < 0:
            raise RuleError(
                "pad: a negative number of elements",
                expected="before and after of 0 or more",
                got=f"before {self.before}, after {self.after}",
                hint="slice takes elements away",
            )

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        size = movable(self.name, self.dim, spec)
        if spec.dtype not in NUMERIC:
            raise StepError(
                f"pad: {spec.dtype} cannot be padded", expected=NUMERIC_TEXT, got=str(spec)
            )
        if expected := lacks(spec.dtype, self.value):
            raise StepError(
                f"pad: {spec.dtype} does not hold the value",
                expected=expected,
                got=repr(self.value),
            )
        padded = self.before + size + self.after
        return (TensorSpec(spec.dtype, with_size(spec.shape, self.dim, padded)),)

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        from converter.steps.float64 import element

        (tensor,) = inputs
        size = tensor.shape[self.dim]
        shape = with_size(tensor.shape, self.dim, self.before + size + self.after)
        padded = np.full(shape, element(self.value, dtype_name(tensor)))
        kept = slice(self.before, self.before + size)
        padded[(*((slice(None),) * self.dim), kept)] = tensor
        return (padded,)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return None

    @property
    def keeps_rows(self) -> bool:
        return self.dim > 0

    def inverse(self, inputs: Specs) -> Slice | None:
        (spec,) = inputs
        stop = self.before + spec.shape[self.dim]
        if stop == self.before:
            return None
        return Slice(self.dim, self.before, stop, because="the rest was added by pad")

    def preimage(self, outputs: Shapes) -> Shapes:
        (shape,) = outputs
        require_dim(self.name, self.dim, shape)
        size = shape[self.dim] - self.before - self.after
        if size < 0:
            raise StepError(
                f"pad: dim {self.dim} of the output is shorter than what is added",
                expected=f"{self.before + self.after} or more",
                got=str(shape[self.dim]),
            )
        return (with_size(shape, self.dim, size),)
