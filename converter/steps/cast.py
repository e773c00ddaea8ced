"""Convert the elements to another dtype: rounded once, and refused when it cannot hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from converter.errors import RuleError, StepError, ValueRefusedError
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
from converter.steps.runs import whole
from converter.steps.step import DTypeName, Runs, Shapes, Specs, Takes, Tensors

if TYPE_CHECKING:
    from torch import Tensor


_SATURATE = "where it does no harm, a rule file says so: overflow: saturate, because: a reason"


@dataclass(frozen=True, slots=True)
class Cast:
    """Convert to ``dtype``, to the nearest number that it holds.

    Between floats a number rounds once, ties to even; NaN stays NaN, infinity stays infinity.
    To or from integers, and booleans as 0 and 1, a number is kept exactly or refused.

    A finite number beyond the range of ``dtype`` is refused, or with ``overflow="saturate"``
    becomes its largest or lowest, and ``because`` says why that does no harm. Infinities do not
    saturate: a dtype that has none refuses them.

    Shapes: unchanged.
    Dtype: a float, integer or boolean to ``dtype``.
    Inverse: ``cast`` back, from a float that holds all numbers of the other and from or to
    integers, since what fits is exact; none when a float narrows, becomes an integer or saturates.
    Raises RuleError for a dtype that cannot be cast to and a reason without a use, StepError for
    a dtype that cannot be cast from, ValueRefusedError when numbers lie beyond the range of
    ``dtype`` or are not integers.

    >>> print(*Cast(dtype="BF16").infer((TensorSpec("F32", (4, 8)),)))
    BF16 [4, 8]
    """

    name: ClassVar[str] = "cast"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    dtype: DTypeName
    overflow: str | None = None
    because: str | None = None

    def __post_init__(self) -> None:
        require_numeric(self.name, self.dtype)
        if self.overflow not in (None, "saturate"):
            raise RuleError(
                "cast: no way to treat what overflows",
                expected="overflow: saturate, or no overflow, which refuses it",
                got=repr(self.overflow),
            )
        if (self.overflow is None) != (not (self.because or "").strip()):
            raise RuleError(
                "cast: a reason is given for what saturates, and for nothing else",
                expected="overflow: saturate and because: why it does no harm, or neither",
                got=f"overflow {self.overflow}, because {self.because!r}",
            )
        if self.overflow and self.dtype == "BOOL":
            raise RuleError("cast: booleans do not saturate", expected="a number", got="BOOL")

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        if spec.dtype not in NUMERIC:
            raise StepError(
                f"cast: {spec.dtype} cannot be cast",
                expected=NUMERIC_TEXT,
                got=str(spec),
            )
        if self.overflow and self.dtype in FLOATS and spec.dtype not in FLOATS:
            raise StepError(
                "cast: an integer is kept exactly by a float, or refused; none saturates",
                expected=f"a float, or a cast to {self.dtype} without overflow",
                got=str(spec),
            )
        return (TensorSpec(self.dtype, spec.shape),)

    def apply(self, inputs: Tensors) -> Tensors:
        from converter.steps.float64 import round_once, to_float64

        (tensor,) = inputs
        target = torch_dtype(self.dtype)
        if tensor.dtype == target:
            return (tensor,)
        if tensor.is_floating_point() and self.dtype in FLOATS:
            if self.overflow:
                tensor = _saturated(tensor, self.dtype)
            _refuse_floats_beyond(tensor, self.dtype)
            return (round_once(tensor, target),)
        if tensor.is_floating_point():
            tensor = to_float64(tensor)
        if self.overflow:
            return (_saturated_integers(tensor, self.dtype),)
        if tensor.is_floating_point():
            _refuse_all_but_integers(tensor, self.dtype)
        else:
            _refuse_integers_beyond(tensor, self.dtype)
        return (tensor.to(target),)

    def flushed(self, inputs: Tensors, outputs: Tensors) -> int:
        """Return how many values that are not zero ``apply`` rounded to zero."""
        (tensor,), (made,) = inputs, outputs
        if not (tensor.is_floating_point() and made.is_floating_point()):
            return 0  # an integer is exact or refused
        return _count_nonzero(tensor) - _count_nonzero(made)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        (spec,) = inputs
        return (whole(spec),) if spec.dtype == self.dtype else None

    @property
    def keeps_rows(self) -> bool:
        return True

    def inverse(self, inputs: Specs) -> Cast | None:
        (spec,) = inputs
        if spec.dtype in FLOATS:
            exact = self.dtype in FLOATS and widens(spec.dtype, self.dtype)
        else:
            exact = self.overflow is None
        return Cast(spec.dtype) if exact else None

    def preimage(self, outputs: Shapes) -> Shapes:
        (_,) = outputs
        return outputs


def _count_nonzero(tensor: Tensor) -> int:
    import torch

    # Torch does not count F8, each of which is exact in F32.
    return int(torch.count_nonzero(tensor.to(torch.float32) if tensor.itemsize == 1 else tensor))


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
            hint=_SATURATE,
        )


def _saturated(tensor: Tensor, dtype: str) -> Tensor:
    """Return finite values beyond the range of a floating dtype as the largest of their sign."""
    import torch

    largest = FLOATS[dtype].largest
    values = tensor if tensor.itemsize >= 4 else tensor.to(torch.float32)
    # A dtype that holds less than ``largest`` cannot hold the limit either.
    if largest >= torch.finfo(values.dtype).max:
        return tensor
    return torch.where(values.isinf(), values, values.clamp(-largest, largest))


def _saturated_integers(tensor: Tensor, dtype: str) -> Tensor:
    """Return integers, or floats that are integers, as ``dtype``; those beyond it as its last."""
    import torch

    first, last = integer_range(dtype)
    if tensor.is_floating_point():
        low = (tensor < float(first)) & tensor.isfinite()
        high = (tensor >= float(last + 1)) & tensor.isfinite()
        tensor = torch.where(low | high, 0.0, tensor)
        _refuse_all_but_integers(tensor, dtype)
        beneath, beyond = low.numpy(), high.numpy()
    else:
        values = (tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor).numpy()
        beneath, beyond = values < first, values > last
    out = tensor.to(torch_dtype(dtype), copy=True)
    out.numpy()[beneath], out.numpy()[beyond] = first, last
    return out


def _refuse_all_but_integers(values: Tensor, dtype: str) -> None:
    first, last = integer_range(dtype)
    # A float64 holds last + 1, a power of two, where it may not hold last.
    fits = (values >= float(first)) & (values < float(last + 1)) & (values == values.trunc())
    if count := int((~fits).sum()):
        raise ValueRefusedError(
            f"cast: {count} of {values.numel()} values are no integers of {dtype}",
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
            hint=None if dtype in FLOATS else _SATURATE,
        )
