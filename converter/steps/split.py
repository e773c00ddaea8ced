"""Split a tensor into consecutive pieces of stated sizes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.concat import Concat
from converter.steps.layout import (
    concatenated,
    movable,
    refuse_negative_dims,
    require_count,
    with_size,
)
from converter.steps.runs import cuts
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Split:
    """Cut ``dim`` into consecutive pieces of ``sizes``, which add up to it exactly.

    Shapes: ``[…, sum(sizes), …] → […, size, …]`` for each size.
    Dtype: unchanged.
    Inverse: ``concat``.
    Raises RuleError for a negative dim or size, StepError when the sizes do not add up.

    >>> print(*Split(dim=0, sizes=(4, 2)).infer((TensorSpec("F32", (6, 8)),)))
    F32 [4, 8] F32 [2, 8]
    """

    name: ClassVar[str] = "split"
    takes: ClassVar[Takes] = "each"

    dim: int
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)
        if not self.sizes or min(self.sizes) < 0:
            raise RuleError(
                "split: sizes are not the sizes of pieces",
                expected="one or more numbers, none of them negative",
                got=str(list(self.sizes)),
                hint="state every size; none is inferred",
            )

    @property
    def fan_out(self) -> int:
        """One output per size."""
        return len(self.sizes)

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        size = movable(self.name, self.dim, spec)
        if sum(self.sizes) != size:
            raise StepError(
                f"split: sizes do not add up to dim {self.dim}",
                expected=f"{size}, the size of dim {self.dim} of {spec}",
                got=f"{' + '.join(map(str, self.sizes))} = {sum(self.sizes)}",
            )
        return tuple(
            TensorSpec(spec.dtype, with_size(spec.shape, self.dim, size)) for size in self.sizes
        )

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        (tensor,) = inputs
        return np.split(tensor, list(accumulate(self.sizes))[:-1], self.dim)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return cuts(inputs[0].shape, self.dim, self.sizes)

    @property
    def keeps_rows(self) -> bool:
        return self.dim > 0

    def inverse(self, inputs: Specs) -> Concat:
        return Concat(self.dim)

    def preimage(self, outputs: Shapes) -> Shapes:
        require_count(self.name, len(self.sizes), outputs)
        whole = concatenated(self.name, self.dim, outputs)
        for number, (shape, size) in enumerate(zip(outputs, self.sizes, strict=True)):
            if shape[self.dim] != size:
                raise StepError(
                    f"split: output {number} is not of the stated size along dim {self.dim}",
                    expected=str(size),
                    got=str(shape[self.dim]),
                )
        return (whole,)
