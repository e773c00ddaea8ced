"""Join tensors of one shape along a new dim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from converter.errors import StepError
from converter.spec import TensorSpec
from converter.steps.layout import (
    common_dtype,
    common_shape,
    refuse_negative_dims,
    require_dim,
    require_listable,
    require_place,
    require_whole_bytes,
    shape_text,
    with_dim,
    without_dim,
)
from converter.steps.runs import joined
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors

if TYPE_CHECKING:
    from converter.steps.unstack import Unstack


@dataclass(frozen=True, slots=True)
class Stack:
    """Lay tensors, in the order of the list, along a new ``dim``.

    Shapes: n of ``[…, a, …] → […, n, a, …]``.
    Dtype: the one of all inputs; nothing is promoted.
    Inverse: ``unstack``.
    Raises RuleError for a negative dim, StepError when shapes or dtypes disagree.

    >>> print(*Stack(dim=0).infer((TensorSpec("F32", (4, 8)),) * 3))
    F32 [3, 4, 8]
    """

    name: ClassVar[str] = "stack"
    takes: ClassVar[Takes] = "all"
    fan_out: ClassVar[int] = 1

    dim: int

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)

    def infer(self, inputs: Specs) -> Specs:
        shape = common_shape(self.name, tuple(spec.shape for spec in inputs))
        dtype = common_dtype(self.name, inputs)
        require_whole_bytes(self.name, inputs[0])
        require_place(self.name, self.dim, shape)
        return (TensorSpec(dtype, with_dim(shape, self.dim, len(inputs))),)

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        return (np.stack(list(inputs), self.dim),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        runs = joined([spec.shape for spec in inputs], self.dim)
        return None if runs is None else (runs,)

    @property
    def keeps_rows(self) -> bool:
        return self.dim > 0

    def inverse(self, inputs: Specs) -> Unstack:
        # Imported here because unstack, which this undoes, imports this module.
        from converter.steps.unstack import Unstack

        return Unstack(self.dim)

    def preimage(self, outputs: Shapes) -> Shapes:
        (stacked,) = outputs
        require_dim(self.name, self.dim, stacked)
        if stacked[self.dim] == 0:
            raise StepError(
                f"stack: dim {self.dim} counts the tensors stacked",
                expected="1 or more",
                got=shape_text(stacked),
            )
        require_listable(self.name, stacked[self.dim])
        return (without_dim(stacked, self.dim),) * stacked[self.dim]
