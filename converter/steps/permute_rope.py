"""A short way to reorder the rows of a projection for another rotary embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError
from converter.steps.deinterleave import Deinterleave
from converter.steps.interleave import Interleave
from converter.steps.layout import refuse_negative_dims
from converter.steps.rearrange import Rearrange
from converter.steps.step import RopeOrder, Step


@dataclass(frozen=True, slots=True)
class PermuteRope:
    """Reorder the rows of each head for a rotary embedding that turns other elements together.

    ``from`` and ``to`` are as the convention ``rope`` names them: ``interleaved`` turns neighbours
    (0, 1), (2, 3) … (Meta's Llama, GPT-J), ``half_split`` element i with element i + width / 2
    (transformers' Llama, GPT-NeoX). Both queries and keys are reordered, which leaves their
    products as they are; ``heads`` are those of the tensor at hand, weight or bias. Only the first
    ``rotary_dim`` of the ``head_dim`` rows are turned, by default all.

    Stands for ``deinterleave`` or ``interleave`` between two ``rearrange``.
    Raises RuleError for two equal conventions, no heads, and an odd or too large ``rotary_dim``.

    >>> step = PermuteRope(from_="interleaved", to="half_split", heads=8, head_dim=64)
    >>> step.expansion()[1]
    Deinterleave(dim=1, groups=2, size=1, stop=None)
    """

    name: ClassVar[str] = "permute_rope"

    from_: RopeOrder
    to: RopeOrder
    heads: int
    head_dim: int
    rotary_dim: int | None = None
    dim: int = 0

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)
        if self.from_ == self.to:
            raise RuleError(
                "permute_rope: nothing to reorder",
                expected="two conventions, interleaved and half_split",
                got=f"from {self.from_} to {self.to}",
            )
        if self.heads < 1 or self.head_dim < 1:
            raise RuleError(
                "permute_rope: no heads, or heads of no elements",
                expected="heads and head_dim of 1 or more",
                got=f"heads {self.heads}, head_dim {self.head_dim}",
            )
        turned = self._turned
        if not 2 <= turned <= self.head_dim or turned % 2:
            raise RuleError(
                "permute_rope: not so many elements of a head are turned in pairs",
                expected=f"an even number from 2 to head_dim {self.head_dim}",
                got=str(turned),
            )

    def expansion(self) -> tuple[Step, ...]:
        """Return the steps that it stands for."""
        lead = "".join(f"dim{number} " for number in range(self.dim))
        one, two = f"{lead}(head row) ...", f"{lead}head row ..."
        sizes = (("head", self.heads), ("row", self.head_dim))
        moves = Deinterleave if self.to == "half_split" else Interleave
        stop = None if self._turned == self.head_dim else self._turned
        return (
            Rearrange(f"{one} -> {two}", sizes),
            moves(self.dim + 1, groups=2, stop=stop),
            Rearrange(f"{two} -> {one}", sizes),
        )

    @property
    def _turned(self) -> int:
        return self.head_dim if self.rotary_dim is None else self.rotary_dim
