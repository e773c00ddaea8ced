"""Convert the elements to another dtype: rounded once, and refused when it cannot hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError, StepError, ValueRefusedError
from converter.spec import TensorSpec
from converter.steps.dtypes import (
    FLOATS,
    NUMERIC,
    NUMERIC_TEXT,
    dtype_name,
    integer_range,
    numpy_dtype,
    require_numeric,
    widens,
)
from converter.steps.runs import whole
from converter.steps.step import Array, DTypeName, Runs, Shapes, Specs, Takes, Tensors

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
    The bits that tell one NaN from another do not come back.
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
                hint="keep_dtype: true in a rule leaves its tensors as they are, whatever --dtype",
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

        (array,) = inputs
        given = dtype_name(array)
        if given == self.dtype:
            return (array,)
        if given in FLOATS and self.dtype in FLOATS:
            if self.overflow:
                array = _saturated(array, self.dtype)
            _refuse_floats_beyond(array, self.dtype)
            return (round_once(array, self.dtype),)
        if given in FLOATS:
            array = to_float64(array)
        if self.overflow:
            return (_saturated_integers(array, self.dtype),)
        if given in FLOATS:
            _refuse_all_but_integers(array, self.dtype)
        else:
            _refuse_integers_beyond(array, self.dtype)
        return (array.astype(numpy_dtype(self.dtype)),)

    def flushed(self, inputs: Tensors, outputs: Tensors) -> int:
        """Return how many values that are not zero ``apply`` rounded to zero."""
        (array,), (made,) = inputs, outputs
        if dtype_name(array) not in FLOATS or self.dtype not in FLOATS:
            return 0  # an integer is exact or refused
        return _count_zeros(made) - _count_zeros(array)

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


def _count_zeros(array: Array) -> int:
    """Return how many floats are zero, by their bits: many times quicker where numpy has no F8."""
    import numpy as np

    bits = array.view(f"u{array.itemsize}")
    zeros = int(np.count_nonzero(bits == 0))
    if dtype_name(array).endswith("FNUZ"):
        return zeros  # its one zero has no sign, and what would be -0.0 is NaN
    return zeros + int(np.count_nonzero(bits == 1 << 8 * array.itemsize - 1))


def _refuse_floats_beyond(array: Array, dtype: str) -> None:
    import numpy as np

    if array.size == 0:
        return
    floats = FLOATS[dtype]
    values = _comparable(array)
    if -floats.largest <= values.min().item() and values.max().item() <= floats.largest:
        return
    magnitudes = np.abs(values)
    beyond = magnitudes > floats.largest
    if floats.infinities:
        beyond &= ~np.isinf(magnitudes)
    if count := int(beyond.sum()):
        raise ValueRefusedError(
            f"cast: {count} of {array.size} values overflow {dtype}",
            expected=f"magnitudes up to {floats.largest:g}",
            got=f"{float(magnitudes[beyond].max())!r}",
            hint=_SATURATE,
        )


def _comparable(array: Array) -> Array:
    """Return the values in a dtype that holds the limits of narrower ones exactly."""
    import numpy as np

    return array if array.itemsize >= 4 else array.astype(np.float32)


def _saturated(array: Array, dtype: str) -> Array:
    """Return finite values beyond the range of a floating dtype as the largest of their sign."""
    import numpy as np

    largest = FLOATS[dtype].largest
    values = _comparable(array)
    # A dtype that holds less than ``largest`` cannot hold the limit either.
    if largest >= float(np.finfo(values.dtype).max):
        return array
    return np.where(np.isinf(values), values, np.clip(values, -largest, largest))


def _saturated_integers(array: Array, dtype: str) -> Array:
    """Return integers, or floats that are integers, as ``dtype``; those beyond it as its last."""
    import numpy as np

    first, last = integer_range(dtype)
    if array.dtype == np.float64:
        beneath = (array < float(first)) & np.isfinite(array)
        beyond = (array >= float(last + 1)) & np.isfinite(array)
        array = np.where(beneath | beyond, 0.0, array)
        _refuse_all_but_integers(array, dtype)
    else:
        array = _numbers(array)
        beneath, beyond = array < first, array > last
    made = array.astype(numpy_dtype(dtype))
    made[beneath], made[beyond] = first, last
    return made


def _refuse_all_but_integers(values: Array, dtype: str) -> None:
    import numpy as np

    first, last = integer_range(dtype)
    # A float64 holds last + 1, a power of two, where it may not hold last.
    fits = (values >= float(first)) & (values < float(last + 1)) & (values == np.trunc(values))
    if count := int((~fits).sum()):
        raise ValueRefusedError(
            f"cast: {count} of {values.size} values are no integers of {dtype}",
            expected=f"integers from {first} to {last}",
            got=f"{float(np.abs(values[~fits]).max())!r}",
        )


def _refuse_integers_beyond(array: Array, dtype: str) -> None:
    values = _numbers(array)
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


def _numbers(array: Array) -> Array:
    """Return booleans as numbers, which can be compared with others."""
    import numpy as np

    return array.astype(np.uint8) if array.dtype == np.bool_ else array
