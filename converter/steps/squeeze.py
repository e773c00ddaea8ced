"""Take out a dim of size 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from converter.errors import StepError
from converter.spec import TensorSpec
from converter.steps.layout import (
    movable,
    refuse_negative_dims,
    require_place,
    with_dim,
    without_dim,
)
from converter.steps.runs import whole
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors

if TYPE_CHECKING:
    from converter.steps.unsqueeze import Unsqueeze


@dataclass(frozen=True, slots=True)
class Squeeze:
    """Take out ``dim``, which is of size 1; unlike ``torch.squeeze``, another size is an error.

    Shapes: ``[a, 1, b] → [a, b]`` for ``dim`` 1.
    Dtype: unchanged.
    Inverse: ``unsqueeze``.
    Raises RuleError for a negative dim, StepError when the dim is absent or not of size 1.

    >>> print(*Squeeze(dim=2).infer((TensorSpec("F32", (4, 8, 1)),)))
    F32 [4, 8]
    """

    name: ClassVar[str] = "squeeze"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    dim: int

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        if movable(self.name, self.dim, spec) != 1:
            raise StepError(
                f"squeeze: dim {self.dim} is not of size 1", expected="size 1", got=str(spec)
            )
        return (TensorSpec(spec.dtype, without_dim(spec.shape, self.dim)),)

    def apply(self, inputs: Tensors) -> Tensors:
        (tensor,) = inputs
        return (tensor.squeeze(self.dim),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return (whole(inputs[0]),)

    @property
    def keeps_rows(self) -> bool:
        return self.dim > 0

    def inverse(self, inputs: Specs) -> Unsqueeze:
        # Imported here because unsqueeze, which this undoes, imports this module.
        from converter.steps.unsqueeze import Unsqueeze

        return Unsqueeze(self.dim)

    def preimage(self, outputs: Shapes) -> Shapes:
        (shape,) = outputs
        require_place(self.name, self.dim, shape)
        return (with_dim(shape, self.dim, 1),)
