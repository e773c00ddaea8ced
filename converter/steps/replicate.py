"""Give one tensor several times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from converter.errors import RuleError
from converter.steps.layout import (
    common_shape,
    require_count,
    require_listable,
    require_whole_bytes,
)
from converter.steps.runs import whole
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors

if TYPE_CHECKING:
    from converter.steps.deduplicate import Deduplicate


@dataclass(frozen=True, slots=True)
class Replicate:
    """Give each tensor ``copies`` times.

    Shapes: ``[…] → […]``, ``copies`` times.
    Dtype: unchanged.
    Inverse: ``deduplicate``.
    Raises RuleError for fewer than 1 copy.

    >>> from converter.spec import TensorSpec
    >>> print(*Replicate(copies=2).infer((TensorSpec("F32", (8,)),)))
    F32 [8] F32 [8]
    """

    name: ClassVar[str] = "replicate"
    takes: ClassVar[Takes] = "each"

    copies: int

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise RuleError("replicate: no copies", expected="1 or more", got=str(self.copies))

    @property
    def fan_out(self) -> int:
        """One output per copy."""
        return self.copies

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        require_whole_bytes(self.name, spec)
        require_listable(self.name, self.copies)
        return (spec,) * self.copies

    def apply(self, inputs: Tensors) -> Tensors:
        (tensor,) = inputs
        return (tensor,) * self.copies

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return (whole(inputs[0]),) * self.copies

    @property
    def keeps_rows(self) -> bool:
        return True

    def inverse(self, inputs: Specs) -> Deduplicate:
        # Imported here because deduplicate, which undoes this, imports this module.
        from converter.steps.deduplicate import Deduplicate

        return Deduplicate()

    def preimage(self, outputs: Shapes) -> Shapes:
        require_count(self.name, self.copies, outputs)
        return (common_shape(self.name, outputs),)
