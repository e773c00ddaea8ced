"""Join tensors end to end along a dim they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from converter.spec import TensorSpec
from converter.steps.layout import (
    common_dtype,
    concatenated,
    refuse_negative_dims,
    require_dim,
    require_whole_bytes,
)
from converter.steps.runs import joined
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors

if TYPE_CHECKING:
    from converter.steps.split import Split


@dataclass(frozen=True, slots=True)
class Concat:
    """Lay tensors, in the order of the list, end to end along ``dim``.

    Shapes: ``[…, a, …], […, b, …], … → […, a + b + …, …]``; all other dims agree.
    Dtype: the one of all inputs; nothing is promoted.
    Inverse: ``split``.
    Raises RuleError for a negative dim, StepError when shapes or dtypes disagree.

    >>> print(*Concat(dim=0).infer((TensorSpec("F32", (4, 8)), TensorSpec("F32", (2, 8)))))
    F32 [6, 8]
    """

    name: ClassVar[str] = "concat"
    takes: ClassVar[Takes] = "all"
    fan_out: ClassVar[int] = 1

    dim: int

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)

    def infer(self, inputs: Specs) -> Specs:
        whole = concatenated(self.name, self.dim, tuple(spec.shape for spec in inputs))
        require_whole_bytes(self.name, inputs[0])
        return (TensorSpec(common_dtype(self.name, inputs), whole),)

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        return (np.concatenate(list(inputs), self.dim),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        runs = joined([spec.shape for spec in inputs], self.dim)
        return None if runs is None else (runs,)

    @property
    def keeps_rows(self) -> bool:
        return self.dim > 0

    def inverse(self, inputs: Specs) -> Split:
        # Imported here because split, which this undoes, imports this module.
        from converter.steps.split import Split

        return Split(self.dim, tuple(spec.shape[self.dim] for spec in inputs))

    def preimage(self, outputs: Shapes) -> Shapes | None:
        (whole,) = outputs
        require_dim(self.name, self.dim, whole)
        return None
