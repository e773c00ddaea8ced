"""Multiply quantised weights by their scales, one for each block.

Source of the layout: DeepSeek-V3, inference/kernel.py (``weight_dequant``): ``weight_scale_inv``,
despite its name, is what the elements of a block of 128 by 128 are multiplied by, and the last
blocks of a dim may be cut short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError, StepError, ValueRefusedError
from converter.spec import Shape, TensorSpec
from converter.steps.dtypes import FLOATS, require_numeric
from converter.steps.layout import shape_text
from converter.steps.step import Array, DTypeName, Runs, Shapes, Specs, Step, Takes, Tensors

# Integers that float64 holds exactly, less a zero point too.
_INTEGERS = ("I8", "U8", "I16", "U16", "I32", "U32")
_WEIGHTS = (*FLOATS, *_INTEGERS)
_SCALES = (*FLOATS, "F8_E8M0")
# Few enough that the float64 copies stay in the cache.
_BLOCK_ELEMENTS = 1 << 18
# How many elements a byte can be.
_CODES = 256


@dataclass(frozen=True, slots=True)
class Dequantize:
    """Give ``(weight - zero point) · scale`` as ``dtype``: in float64, rounded once.

    Takes weight and scale, and a zero point if there is one. ``block`` is the size of a block along
    each dim of the weight; each has one scale, and the last of a dim may be cut short. The whole
    size is one block: ``[1, columns]`` is a scale per row, ``[rows, columns]`` one for all. Dims of
    which there is one block may be absent in the scale.

    Shapes: weight ``[r, c]``, scale ``[⌈r / block⌉, ⌈c / block⌉] → [r, c]``.
    Dtype: floats, or integers of up to 32 bits, with scales of a float or F8_E8M0, to ``dtype``.
    Inverse: none; the scales are lost.
    Raises RuleError for a block below 1 and a ``dtype`` that is no float, StepError when the
    tensors do not fit, ValueRefusedError when finite numbers overflow ``dtype``.

    >>> weight, scale = TensorSpec("F8_E4M3", (300, 256)), TensorSpec("F32", (3, 2))
    >>> print(*Dequantize(block=(128, 128), dtype="BF16").infer((weight, scale)))
    BF16 [300, 256]
    """

    name: ClassVar[str] = "dequantize"
    takes: ClassVar[Takes] = "all"
    fan_out: ClassVar[int] = 1

    block: tuple[int, ...]
    dtype: DTypeName

    def __post_init__(self) -> None:
        require_numeric(self.name, self.dtype)
        if self.dtype not in FLOATS:
            raise RuleError(
                f"dequantize: {self.dtype} is no float",
                expected=f"one of {', '.join(FLOATS)}",
                got=self.dtype,
            )
        if min(self.block, default=1) < 1:
            raise RuleError(
                "dequantize: a block of no elements",
                expected="1 or more",
                got=str(list(self.block)),
            )

    def infer(self, inputs: Specs) -> Specs:
        if len(inputs) not in (2, 3):
            raise StepError(
                "dequantize: not a weight and its scale",
                expected="weight, scale; or weight, scale, zero point",
                got=f"{len(inputs)} tensors",
            )
        weight, *others = inputs
        self._require_dtypes(inputs)
        blocks = self._blocks(weight.shape)
        for name, spec in zip(("scale", "zero point"), others, strict=False):
            if _long_dims(spec.shape) != _long_dims(blocks):
                raise StepError(
                    f"dequantize: the {name} is not one number for each block",
                    expected=f"{shape_text(blocks)}, for weight {weight} and "
                    f"block {shape_text(self.block)}",
                    got=str(spec),
                )
        return (TensorSpec(self.dtype, weight.shape),)

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        from converter.numpy_dtypes import NUMPY_DTYPES

        weight, *others = inputs
        blocks = self._blocks(weight.shape)
        parts = [other.reshape(blocks) for other in others]
        tables = self._tables(weight, parts)
        numbers = np.arange(math.prod(blocks)).reshape(blocks)
        made = np.empty(weight.shape, NUMPY_DTYPES[self.dtype])
        for rows in self._slabs(weight.shape):
            some = weight[rows]
            if tables is None:
                spread = [self._spread(part, rows, weight.shape) for part in parts]
                made[rows] = self._results(some, spread)
            else:
                places = self._spread(numbers, rows, weight.shape) * _CODES
                made[rows] = tables.take(places + some.view(np.uint8))
        return (made,)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return None

    @property
    def keeps_rows(self) -> bool:
        return False

    def inverse(self, inputs: Specs) -> Step | None:
        return None

    def preimage(self, outputs: Shapes) -> Shapes | None:
        (weight,) = outputs
        self._blocks(weight)
        return None

    def _require_dtypes(self, inputs: Specs) -> None:
        for name, spec, dtypes in zip(
            ("weight", "scale", "zero point"), inputs, (_WEIGHTS, _SCALES, _WEIGHTS), strict=False
        ):
            if spec.dtype not in dtypes:
                raise StepError(
                    f"dequantize: no {name} is of {spec.dtype}",
                    expected=f"one of {', '.join(dtypes)}",
                    got=str(spec),
                )

    def _blocks(self, weight: Shape) -> Shape:
        """Return how many blocks there are along each dim."""
        if len(weight) != len(self.block):
            raise StepError(
                f"dequantize: blocks of {len(self.block)} dims",
                expected="a block size for each dim of the weight",
                got=f"{shape_text(self.block)} for {shape_text(weight)}",
            )
        return tuple(-(-size // block) for size, block in zip(weight, self.block, strict=True))

    def _slabs(self, shape: Shape) -> list[tuple[slice, ...]]:
        """Return parts of dim 0, none of them longer than fits the cache."""
        if not shape or 0 in shape:
            return [()]
        rows = max(1, _BLOCK_ELEMENTS // math.prod(shape[1:]))
        return [(slice(first, first + rows),) for first in range(0, shape[0], rows)]

    def _tables(self, weight: Array, parts: Sequence[Array]) -> Array | None:
        """Return the result of each block for each element that a byte can be.

        None where that is more work than the weight itself, or an element that may not be there
        cannot be taken.
        """
        import numpy as np

        if weight.itemsize > 1 or parts[0].size * _CODES > weight.size:
            return None
        elements = np.arange(_CODES, dtype=np.uint8).view(weight.dtype)
        try:
            return self._results(elements, [part.reshape(-1, 1) for part in parts])
        except ValueRefusedError:
            return None

    def _results(self, weight: Array, parts: Sequence[Array]) -> Array:
        from converter.steps.float64 import rounded_result, to_float64

        scale, *zero = map(to_float64, parts)
        values = to_float64(weight)
        for point in zero:
            values = values - point
        return rounded_result(self.name, values * scale, self.dtype, [weight, *parts])

    def _spread(self, part: Array, rows: tuple[slice, ...], shape: Shape) -> Array:
        """Return what ``part`` has for its block, for each element of some rows."""
        import numpy as np

        for dim, (size, block) in enumerate(zip(shape, self.block, strict=True)):
            places = np.arange(size)
            if dim == 0 and rows:
                places = places[rows[0]]
            part = part.take(places // block, axis=dim)
        return part


def _long_dims(shape: Shape) -> Shape:
    """Return the dims that are not of size 1, which say how the elements lie."""
    return tuple(size for size in shape if size != 1)
