"""Keep one of several tensors that must be the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import ValueRefusedError
from converter.spec import TensorSpec
from converter.steps.layout import common_dtype, common_shape, require_whole_bytes
from converter.steps.replicate import Replicate
from converter.steps.step import Array, Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Deduplicate:
    """Give one tensor for all of the list, which must be equal byte for byte.

    Shapes: n of ``[…] → […]``.
    Dtype: the one of all inputs.
    Inverse: ``replicate``.
    Raises StepError when shapes or dtypes disagree, ValueRefusedError when the tensors differ.

    >>> print(*Deduplicate().infer((TensorSpec("F32", (8,)), TensorSpec("F32", (8,)))))
    F32 [8]
    """

    name: ClassVar[str] = "deduplicate"
    takes: ClassVar[Takes] = "all"
    fan_out: ClassVar[int] = 1

    def infer(self, inputs: Specs) -> Specs:
        shape = common_shape(self.name, tuple(spec.shape for spec in inputs))
        dtype = common_dtype(self.name, inputs)
        require_whole_bytes(self.name, inputs[0])
        return (TensorSpec(dtype, shape),)

    def apply(self, inputs: Tensors) -> Tensors:
        first, *others = inputs
        expected = _raw(first)
        for number, other in enumerate(others, start=1):
            differ = _raw(other) != expected
            if count := int(differ.sum()):
                raise ValueRefusedError(
                    f"deduplicate: tensor {number} differs from tensor 0",
                    expected=f"{len(inputs)} tensors equal byte for byte",
                    got=f"another byte at {int(differ.argmax())}; {count} of {differ.size} differ",
                    hint="tensors are counted from 0, as ranks are; those that hold parts of one"
                    " are merged along a dim",
                )
        return (first,)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return None  # all are looked at

    @property
    def keeps_rows(self) -> bool:
        return True

    def inverse(self, inputs: Specs) -> Replicate:
        return Replicate(len(inputs))

    def preimage(self, outputs: Shapes) -> Shapes | None:
        return None


def _raw(array: Array) -> Array:
    import numpy as np

    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
