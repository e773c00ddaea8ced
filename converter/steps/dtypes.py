"""Which numbers a dtype holds, and what numpy calls it.

Sources: IEEE 754-2019, table 3.5 (F16, F32, F64); Micikevicius et al. 2022, arXiv:2209.05433,
table 1 (F8_E4M3, F8_E5M2); Noune et al. 2022, arXiv:2206.02915 (F8 of FNUZ: finite, NaN, and one
zero, without a sign); BF16 is F32 with 16 bits of significand fewer. F8_E8M0, of scales, has
powers of two only, and neither a sign nor a zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converter.errors import RuleError, StepError
from converter.finding import closest
from converter.spec import DTYPES
from converter.steps.step import Array, Number, Specs

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Floats:
    """The numbers of a floating dtype.

    ``digits`` are those of the significand in binary, the implicit one included; ``largest`` is
    the largest finite number and ``smallest`` the smallest above zero.
    """

    digits: int
    largest: float
    smallest: float
    infinities: bool = True


FLOATS: Mapping[str, Floats] = {
    "F64": Floats(53, (2 - 2.0**-52) * 2.0**1023, 2.0**-1074),
    "F32": Floats(24, (2 - 2.0**-23) * 2.0**127, 2.0**-149),
    "BF16": Floats(8, (2 - 2.0**-7) * 2.0**127, 2.0**-133),
    "F16": Floats(11, 65504.0, 2.0**-24),
    "F8_E5M2": Floats(3, 57344.0, 2.0**-16),
    "F8_E4M3": Floats(4, 448.0, 2.0**-9, infinities=False),
    "F8_E5M2FNUZ": Floats(3, 57344.0, 2.0**-17, infinities=False),
    "F8_E4M3FNUZ": Floats(4, 240.0, 2.0**-10, infinities=False),
}

NUMERIC = (
    *FLOATS,
    *(name for name, dtype in DTYPES.items() if dtype.kind in ("integer", "bool")),
)
NUMERIC_TEXT = f"one of {', '.join(NUMERIC)}"


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """Return the numpy dtype of a safetensors one of whole bytes."""
    # Imported here, since a plan knows steps but needs no numpy.
    from converter.numpy_dtypes import NUMPY_DTYPES

    return NUMPY_DTYPES[dtype]


def dtype_name(array: Array) -> str:
    """Return the safetensors dtype of an array."""
    from converter.numpy_dtypes import SAFETENSORS_DTYPES

    return SAFETENSORS_DTYPES[array.dtype]


def require_numeric(step: str, dtype: str) -> None:
    """Raise RuleError unless ``dtype`` is one whose numbers are known."""
    if dtype not in NUMERIC:
        near = closest(dtype.upper(), NUMERIC)
        raise RuleError(
            f"{step}: {dtype!r} is no dtype of numbers",
            expected=NUMERIC_TEXT,
            got=repr(dtype),
            hint=f"did you mean {near!r}?" if near else None,
        )


def require_floats(step: str, specs: Specs) -> None:
    """Raise StepError unless all are of a floating dtype, on which arithmetic is done."""
    for spec in specs:
        if spec.dtype not in FLOATS:
            raise StepError(
                f"{step}: {spec.dtype} is no float",
                expected=f"one of {', '.join(FLOATS)}",
                got=str(spec),
                hint="cast it first",
            )


def integer_range(dtype: str) -> tuple[int, int]:
    """Return the first and last of the consecutive integers that a numeric dtype holds exactly.

    >>> integer_range("I8"), integer_range("F16")
    ((-128, 127), (-2048, 2048))
    """
    if dtype in FLOATS:
        last = 2 ** FLOATS[dtype].digits
        return -last, last
    if dtype == "BOOL":
        return 0, 1
    bits = DTYPES[dtype].bits
    return (0, 2**bits - 1) if dtype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def lacks(dtype: str, value: Number) -> str | None:
    """Return what a numeric dtype takes, if ``value`` is none of it; None where it is.

    A float rounds a value, and takes no NaN or infinity; others take their integers only.

    >>> lacks("U8", 256)
    'an integer from 0 to 255'
    """
    if dtype in FLOATS:
        largest = FLOATS[dtype].largest
        # Written so that NaN is refused too.
        return None if abs(value) <= largest else f"a magnitude up to {largest:g}"
    first, last = integer_range(dtype)
    fits = isinstance(value, int) and first <= value <= last
    return None if fits else f"an integer from {first} to {last}"


def widens(source: str, target: str) -> bool:
    """Return whether every number of the floating dtype ``source`` is one of ``target``."""
    narrow, wide = FLOATS[source], FLOATS[target]
    return (
        narrow.digits <= wide.digits
        and narrow.largest <= wide.largest
        and narrow.smallest >= wide.smallest
        and narrow.infinities <= wide.infinities
    )
