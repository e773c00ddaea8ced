"""Convert the elements to another dtype, rounding once and refusing what it cannot hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from converter.errors import StepError, ValueRefusedError
from converter.spec import TensorSpec
from converter.steps.dtypes import (
    FLOATS,
    NUMERIC,
    NUMERIC_TEXT,
    integer_range,
    require_numeric,
    torch_dtype,
    widens,
)
from converter.steps.step import DTypeName, Shapes, Specs, Takes, Tensors

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Cast:
    """Convert to ``dtype``, to the nearest number that it holds; nothing ever saturates.

    Between floats a number rounds once, ties to even; NaN stays NaN, infinity stays infinity.
    To or from integers, and booleans as 0 and 1, a number is kept exactly or refused.

    Shapes: unchanged.
    Dtype: a float, integer or boolean to ``dtype``.
    Inverse: ``cast`` back, from a float that holds all numbers of the other and from or to
    integers, since what fits is exact; none when a float narrows or becomes an integer.
    Raises RuleError for a dtype that cannot be cast to, StepError for one that cannot be cast
    from, ValueRefusedError when numbers lie beyond the range of ``dtype`` or are not integers.

    >>> print(*Cast(dtype="BF16").infer((TensorSpec("F32", (4, 8)),)))
    BF16 [4, 8]
    """

    name: ClassVar[str] = "cast"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    dtype: DTypeName

    def __post_init__(self) -> None:
        require_numeric(self.name, self.dtype)

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        if spec.dtype not in NUMERIC:
            raise StepError(
                f"cast: {spec.dtype} cannot be cast",
                expected=NUMERIC_TEXT,
                got=str(spec),
            )
        return (TensorSpec(self.dtype, spec.shape),)

    def apply(self, inputs: Tensors) -> Tensors:
        from converter.steps.float64 import round_once

        (tensor,) = inputs
        target = torch_dtype(self.dtype)
        if tensor.dtype == target:
            return (tensor,)
        if not tensor.is_floating_point():
            _refuse_integers_beyond(tensor, self.dtype)
        elif self.dtype in FLOATS:
            _refuse_floats_beyond(tensor, self.dtype)
            return (round_once(tensor, target),)
        else:
            _refuse_all_but_integers(tensor, self.dtype)
        return (tensor.to(target),)

    def inverse(self, inputs: Specs) -> Cast | None:
        (spec,) = inputs
        exact = spec.dtype not in FLOATS or (
            self.dtype in FLOATS and widens(spec.dtype, self.dtype)
        )
        return Cast(spec.dtype) if exact else None

    def preimage(self, outputs: Shapes) -> Shapes:
        (_,) = outputs
        return outputs


def _refuse_floats_beyond(tensor: Tensor, dtype: str) -> None:
    import torch

    if tensor.numel() == 0:
        return
    floats = FLOATS[dtype]
    # Torch would round the limit itself to a dtype narrower than F32 before it compares.
    values = tensor if tensor.itemsize >= 4 else tensor.to(torch.float32)
    if -floats.largest <= values.min().item() and values.max().item() <= floats.largest:
        return
    magnitudes = values.abs()
    beyond = magnitudes > floats.largest
    if floats.infinities:
        beyond &= ~magnitudes.isinf()
    if count := int(beyond.sum()):
        raise ValueRefusedError(
            f"cast: {count} of {tensor.numel()} values overflow {dtype}",
            expected=f"magnitudes up to {floats.largest:g}",
            got=f"{float(magnitudes[beyond].max())!r}",
        )


def _refuse_all_but_integers(tensor: Tensor, dtype: str) -> None:
    from converter.steps.float64 import to_float64

    values = to_float64(tensor)
    first, last = integer_range(dtype)
    # A float64 holds last + 1, a power of two, where it may not hold last.
    fits = (values >= float(first)) & (values < float(last + 1)) & (values == values.trunc())
    if count := int((~fits).sum()):
        raise ValueRefusedError(
            f"cast: {count} of {tensor.numel()} values are no integers of {dtype}",
            expected=f"integers from {first} to {last}",
            got=f"{float(values[~fits].abs().max())!r}",
        )


def _refuse_integers_beyond(tensor: Tensor, dtype: str) -> None:
    import torch

    # Numpy compares unsigned integers wider than a byte, which torch cannot, but no booleans.
    values = (tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor).numpy()
    first, last = integer_range(dtype)
    beyond = (values < first) | (values > last)
    if beyond.any():
        refused = values[beyond]
        raise ValueRefusedError(
            f"cast: {refused.size} of {values.size} integers do not fit {dtype}",
            expected=f"integers from {first} to {last}, which {dtype} holds exactly",
            got=f"{max(int(refused.min()), int(refused.max()), key=abs)}",
        )
