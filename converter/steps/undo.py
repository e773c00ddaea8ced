"""Steps that no rule file names: what gives an original layout back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

from converter.errors import StepError
from converter.spec import TensorSpec
from converter.steps.dtypes import numpy_dtype
from converter.steps.step import (
    DTypeName,
    Run,
    Runs,
    Shapes,
    Specs,
    Step,
    Takes,
    Tensors,
)

# What is brought to float64 at a time.
_BLOCK_ELEMENTS = 1 << 20


class _OneWay:
    """What nothing is to undo, and whose inputs nobody infers."""

    def inverse(self, inputs: Specs) -> Step | None:
        """Return None: it is not undone."""
        return None

    def preimage(self, outputs: Shapes) -> Shapes | None:
        """Return None: it is built where all shapes are known."""
        return None


@dataclass(frozen=True, slots=True)
class Apart(_OneWay):
    """Apply each of ``steps`` to so many of the tensors, in order, as ``counts`` says.

    Shapes, dtypes and errors are those of the steps.

    >>> from converter.steps.transpose import Transpose
    >>> from converter.steps.concat import Concat
    >>> spec = TensorSpec("F32", (2, 3))
    >>> print(*Apart((Concat(0), Transpose()), (2, 1)).infer((spec, spec, spec)))
    F32 [4, 3] F32 [3, 2]
    """

    name: ClassVar[str] = "apart"
    takes: ClassVar[Takes] = "all"
    fan_out: ClassVar[None] = None

    steps: tuple[Step, ...]
    counts: tuple[int, ...]

    def _parts(self, count: int) -> Iterator[tuple[Step, slice]]:
        if count != sum(self.counts):
            raise StepError(
                "apart: another number of tensors",
                expected=str(sum(self.counts)),
                got=str(count),
            )
        bounds = pairwise(accumulate(self.counts, initial=0))
        for step, (begin, end) in zip(self.steps, bounds, strict=True):
            yield step, slice(begin, end)

    def infer(self, inputs: Specs) -> Specs:
        parts = self._parts(len(inputs))
        return tuple(spec for step, part in parts for spec in step.infer(inputs[part]))

    def apply(self, inputs: Tensors) -> Tensors:
        parts = self._parts(len(inputs))
        return [made for step, part in parts for made in step.apply(inputs[part])]

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        made: list[Runs] = []
        for step, part in self._parts(len(inputs)):
            moved = step.runs(inputs[part])
            if moved is None:
                return None
            made += (
                tuple(Run(run.number + part.start, run.begin, run.end) for run in runs)
                for runs in moved
            )
        return tuple(made)

    @property
    def keeps_rows(self) -> bool:
        return all(step.keeps_rows for step in self.steps)


@dataclass(frozen=True, slots=True)
class Pick(_OneWay):
    """Keep tensor ``number``, from 0, of the list.

    >>> print(*Pick(1).infer((TensorSpec("F32", (4,)), TensorSpec("I64", (2,)))))
    I64 [2]
    """

    name: ClassVar[str] = "pick"
    takes: ClassVar[Takes] = "all"
    fan_out: ClassVar[int] = 1

    number: int

    def infer(self, inputs: Specs) -> Specs:
        return (inputs[self.number],)

    def apply(self, inputs: Tensors) -> Tensors:
        return (inputs[self.number],)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return ((Run(self.number, 0, inputs[self.number].numel),),)

    @property
    def keeps_rows(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Known(_OneWay):
    """Make a tensor whose values are known: ``arange``, or ``lower_triangular``.

    That is 0, 1, 2 and so on in row-major order, or ones on and below the diagonal of the last two
    dims and zeros above it.

    >>> Known("arange", (1, 4), "I64").apply(())[0]
    array([[0, 1, 2, 3]])
    """

    name: ClassVar[str] = "known"
    takes: ClassVar[Takes] = "all"
    fan_out: ClassVar[int] = 1

    values: str
    shape: tuple[int, ...]
    dtype: DTypeName

    def infer(self, inputs: Specs) -> Specs:
        return (TensorSpec(self.dtype, self.shape),)

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        dtype = numpy_dtype(self.dtype)
        if self.values == "arange":
            return (np.arange(math.prod(self.shape)).reshape(self.shape).astype(dtype),)
        return (np.tril(np.ones(self.shape, np.uint8)).astype(dtype),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return None

    @property
    def keeps_rows(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class SplitWeightNorm(_OneWay):
    """Make a gain g and a direction v, in this order, that stand for a weight.

    The direction is the weight; the gain is its norm over all dims but ``dim``, computed in
    float64 and rounded once. Folding them gives the weight back but for rounding. Source of the
    choice: ``torch.nn.utils.weight_norm``, which begins so.

    Shapes: ``[o, i, k] →`` g ``[o, 1, 1]``, v ``[o, i, k]`` for ``dim`` 0.
    Dtype: unchanged.

    >>> print(*SplitWeightNorm(0).infer((TensorSpec("F32", (8, 4)),)))
    F32 [8, 1] F32 [8, 4]
    """

    name: ClassVar[str] = "split_weight_norm"
    takes: ClassVar[Takes] = "all"
    fan_out: ClassVar[int] = 2

    dim: int

    def infer(self, inputs: Specs) -> Specs:
        (weight,) = inputs
        gain = tuple(size if dim == self.dim else 1 for dim, size in enumerate(weight.shape))
        return (TensorSpec(weight.dtype, gain), weight)

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        from converter.steps.dtypes import dtype_name
        from converter.steps.float64 import fixed_order_sum, round_once, to_float64

        (weight,) = inputs
        rows = weight.shape[self.dim]
        before, after = weight.shape[: self.dim], weight.shape[self.dim + 1 :]
        flat = weight.reshape(math.prod(before), rows, math.prod(after))
        norm = np.empty(rows)
        block = max(1, _BLOCK_ELEMENTS * rows // max(1, weight.size))
        for start in range(0, rows, block):
            part = slice(start, start + block)
            values = to_float64(flat[:, part])
            norm[part] = np.sqrt(fixed_order_sum(fixed_order_sum(values * values, 0), 1))
        gain = round_once(norm, dtype_name(weight))
        return (gain.reshape(*(1 for _ in before), rows, *(1 for _ in after)), weight)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return None

    @property
    def keeps_rows(self) -> bool:
        return self.dim == 0
