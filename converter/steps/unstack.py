"""Take a tensor apart along a dim, which goes away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import StepError
from converter.spec import TensorSpec
from converter.steps.layout import (
    common_shape,
    movable,
    refuse_negative_dims,
    require_listable,
    require_place,
    with_dim,
    without_dim,
)
from converter.steps.runs import cuts
from converter.steps.stack import Stack
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Unstack:
    """Give the slices of ``dim`` as tensors without that dim, in order (``torch.unbind``).

    Shapes: ``[…, n, a, …] →`` n of ``[…, a, …]``.
    Dtype: unchanged.
    Inverse: ``stack``.
    Raises RuleError for a negative dim, StepError when the dim is absent or empty.

    >>> print(*Unstack(dim=0).infer((TensorSpec("F32", (3, 4)),)))
    F32 [4] F32 [4] F32 [4]
    """

    name: ClassVar[str] = "unstack"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[None] = None

    dim: int

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        count = movable(self.name, self.dim, spec)
        if count == 0:
            raise StepError(
                f"unstack: dim {self.dim} is empty", expected="1 or more", got=str(spec)
            )
        require_listable(self.name, count)
        return (TensorSpec(spec.dtype, without_dim(spec.shape, self.dim)),) * count

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        (tensor,) = inputs
        rows = np.moveaxis(tensor, self.dim, 0)
        # With an ellipsis, the element of a vector is a tensor without dims, and not a number.
        return [rows[at, ...] for at in range(len(rows))]

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        (spec,) = inputs
        return cuts(spec.shape, self.dim, (1,) * spec.shape[self.dim])

    @property
    def keeps_rows(self) -> bool:
        return self.dim > 0

    def inverse(self, inputs: Specs) -> Stack:
        return Stack(self.dim)

    def preimage(self, outputs: Shapes) -> Shapes:
        shape = common_shape(self.name, outputs)
        require_place(self.name, self.dim, shape)
        return (with_dim(shape, self.dim, len(outputs)),)
