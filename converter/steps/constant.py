"""Make a tensor that has no source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.dtypes import lacks, require_numeric
from converter.steps.layout import require_count, shape_text
from converter.steps.step import DTypeName, Number, Runs, Shapes, Specs, Step, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Constant:
    """Make one tensor whose every element is ``value``.

    Shapes: nothing ``→ shape``.
    Dtype: ``dtype``. A float rounds ``value`` once; an integer or boolean takes integers only.
    Inverse: none.
    Raises RuleError for a negative size or a value that ``dtype`` does not hold, StepError when
    there are inputs.

    >>> print(*Constant(value=1.0, shape=(4, 8), dtype="F32").infer(()))
    F32 [4, 8]
    """

    name: ClassVar[str] = "constant"
    takes: ClassVar[Takes] = "all"
    fan_out: ClassVar[int] = 1

    value: Number
    shape: tuple[int, ...]
    dtype: DTypeName

    def __post_init__(self) -> None:
        if min(self.shape, default=0) < 0:
            raise RuleError(
                "constant: a negative size", expected="0 or more", got=shape_text(self.shape)
            )
        require_numeric(self.name, self.dtype)
        if expected := lacks(self.dtype, self.value):
            raise RuleError(
                f"constant: {self.dtype} does not hold the value",
                expected=expected,
                got=repr(self.value),
            )

    def infer(self, inputs: Specs) -> Specs:
        if inputs:
            raise StepError(
                "constant: it takes no tensors",
                expected="a rule without sources",
                got=f"{len(inputs)} tensors",
            )
        return (TensorSpec(self.dtype, self.shape),)

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        from converter.steps.float64 import element

        return (np.full(self.shape, element(self.value, self.dtype)),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return None

    @property
    def keeps_rows(self) -> bool:
        return False

    def inverse(self, inputs: Specs) -> Step | None:
        return None

    def preimage(self, outputs: Shapes) -> Shapes:
        require_count(self.name, 1, outputs)
        if outputs[0] != self.shape:
            raise StepError(
                "constant: the output is not of the stated shape",
                expected=shape_text(self.shape),
                got=shape_text(outputs[0]),
            )
        return ()
