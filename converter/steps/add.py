"""Add tensors, and a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.dtypes import FLOATS, dtype_name, require_floats
from converter.steps.layout import common_dtype, common_shape
from converter.steps.step import Number, Runs, Shapes, Specs, Step, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Add:
    """Give the sum of all tensors of the list and of ``value``: in float64, rounded once.

    Two biases become one; ``value`` 1 makes the weight of a norm that multiplies by ``1 + weight``
    (as Gemma's) that of one that multiplies by ``weight``. Tensors are added in the order of the
    list, ``value`` last.

    Shapes: n of ``[…] → […]``.
    Dtype: the one of all inputs, a float.
    Inverse: none; a sum does not tell its parts, and rounds.
    Raises RuleError unless ``value`` is finite, StepError when shapes or dtypes disagree, for a
    dtype that is no float, and when there is nothing to add; ValueRefusedError when finite numbers
    overflow.

    >>> print(*Add().infer((TensorSpec("F32", (8,)), TensorSpec("F32", (8,)))))
    F32 [8]
    """

    name: ClassVar[str] = "add"
    takes: ClassVar[Takes] = "all"
    fan_out: ClassVar[int] = 1

    value: Number = 0

    def __post_init__(self) -> None:
        # Written so that NaN is refused too.
        if not abs(self.value) <= FLOATS["F64"].largest:
            raise RuleError("add: no number to add", expected="finite", got=repr(self.value))

    def infer(self, inputs: Specs) -> Specs:
        shape = common_shape(self.name, tuple(spec.shape for spec in inputs))
        dtype = common_dtype(self.name, inputs)
        require_floats(self.name, inputs)
        if len(inputs) == 1 and self.value == 0:
            raise StepError(
                "add: there is nothing to add",
                expected="two tensors or more, or a value other than 0",
                got="one tensor",
            )
        return (TensorSpec(dtype, shape),)

    def apply(self, inputs: Tensors) -> Tensors:
        from converter.steps.float64 import rounded_result, to_float64

        total = to_float64(inputs[0])
        for tensor in inputs[1:]:
            total = total + to_float64(tensor)
        if self.value:
            total = total + float(self.value)
        return (rounded_result(self.name, total, dtype_name(inputs[0]), inputs),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return None

    @property
    def keeps_rows(self) -> bool:
        return True

    def inverse(self, inputs: Specs) -> Step | None:
        return None

    def preimage(self, outputs: Shapes) -> Shapes | None:
        return None
