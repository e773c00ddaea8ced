"""Multiply the elements by one number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError
from converter.steps.dtypes import FLOATS, dtype_name, require_floats
from converter.steps.step import Number, Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Scale:
    """Multiply by the number ``by``: in float64, rounded once.

    Shapes: unchanged.
    Dtype: a float, unchanged.
    Inverse: ``scale`` by 1 / ``by`` where ``by`` is a power of two of magnitude 1 or more, by which
    nothing is rounded and what overflows is refused; none otherwise, since numbers round, and
    smaller powers of two drop the last bits of the smallest numbers.
    Raises RuleError unless ``by`` is finite and not 0, StepError for a dtype that is no float,
    ValueRefusedError when finite numbers overflow.

    >>> Scale(by=8).inverse(())
    Scale(by=0.125)
    """

    name: ClassVar[str] = "scale"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    by: Number

    def __post_init__(self) -> None:
        # Written so that NaN is refused too.
        if not 0 < abs(self.by) <= FLOATS["F64"].largest:
            raise RuleError(
                "scale: no number to multiply by",
                expected="a finite number other than 0",
                got=repr(self.by),
            )

    def infer(self, inputs: Specs) -> Specs:
        require_floats(self.name, inputs)
        return inputs

    def apply(self, inputs: Tensors) -> Tensors:
        from converter.steps.float64 import rounded_result, to_float64

        (tensor,) = inputs
        product = to_float64(tensor) * float(self.by)
        return (rounded_result(self.name, product, dtype_name(tensor), [tensor]),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return None

    @property
    def keeps_rows(self) -> bool:
        return True

    def inverse(self, inputs: Specs) -> Scale | None:
        exact = abs(math.frexp(self.by)[0]) == 0.5 and abs(self.by) >= 1
        return Scale(1 / self.by) if exact else None

    def preimage(self, outputs: Shapes) -> Shapes:
        return outputs
