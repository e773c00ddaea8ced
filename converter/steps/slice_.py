"""Keep a range of one dim and discard the rest.

The file's name ends in an underscore so that the package's namespace keeps Python's ``slice``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.layout import movable, refuse_negative_dims, require_dim, with_size
from converter.steps.runs import cuts
from converter.steps.step import Runs, Shapes, Specs, Step, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Slice:
    """Keep the elements ``start`` to ``stop`` of ``dim``, ``stop`` excluded.

    ``because`` says why the discarded elements are not needed.

    Shapes: ``[…, n, …] → […, stop - start, …]``.
    Dtype: unchanged.
    Inverse: none; elements are discarded.
    Raises RuleError for a negative dim, an empty range or no reason, StepError when the range
    reaches beyond the end.

    >>> step = Slice(dim=0, start=2, stop=6, because="rows 0 and 1 are padding")
    >>> print(*step.infer((TensorSpec("F32", (6, 8)),)))
    F32 [4, 8]
    """

    name: ClassVar[str] = "slice"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    dim: int
    start: int
    stop: int
    because: str

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)
        if not 0 <= self.start < self.stop:
            raise RuleError(
                "slice: an empty or negative range",
                expected="0 <= start < stop",
                got=f"start {self.start}, stop {self.stop}",
                hint="count from the front; stop is the first element that is left out",
            )
        if not self.because.strip():
            raise RuleError(
                "slice: no reason is given",
                expected="because: why the discarded elements are not needed",
                got=repr(self.because),
            )

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        size = movable(self.name, self.dim, spec)
        if self.stop > size:
            raise StepError(
                f"slice: the range reaches beyond the end of dim {self.dim}",
                expected=f"stop up to {size}, the size of dim {self.dim} of {spec}",
                got=f"stop {self.stop}",
            )
        kept = self.stop - self.start
        return (TensorSpec(spec.dtype, with_size(spec.shape, self.dim, kept)),)

    def apply(self, inputs: Tensors) -> Tensors:
        (tensor,) = inputs
        return (tensor[(*((slice(None),) * self.dim), slice(self.start, self.stop))],)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        (spec,) = inputs
        rest = spec.shape[self.dim] - self.stop
        pieces = cuts(spec.shape, self.dim, (self.start, self.stop - self.start, rest))
        return None if pieces is None else pieces[1:2]

    @property
    def keeps_rows(self) -> bool:
        return self.dim > 0

    def inverse(self, inputs: Specs) -> Step | None:
        return None

    def preimage(self, outputs: Shapes) -> Shapes | None:
        (shape,) = outputs
        require_dim(self.name, self.dim, shape)
        if shape[self.dim] != self.stop - self.start:
            raise StepError(
                f"slice: dim {self.dim} of the output is not of the size kept",
                expected=f"{self.stop - self.start}, from {self.start} to {self.stop}",
                got=str(shape[self.dim]),
            )
        return None
