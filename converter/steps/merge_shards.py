"""A short way to merge what tensor-parallel ranks hold of one tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError
from converter.steps.concat import Concat
from converter.steps.deduplicate import Deduplicate
from converter.steps.layout import refuse_negative_dims
from converter.steps.step import Step


@dataclass(frozen=True, slots=True)
class MergeShards:
    """Make one tensor of the list of what each rank holds, in the order of the ranks.

    Either ``dim`` is the one along which the ranks have parts, or ``replicated`` says that each
    has the whole, which is proven byte for byte.

    Stands for ``concat`` or ``deduplicate``.
    Raises RuleError unless exactly one of the two is stated.

    >>> MergeShards(dim=1).expansion()
    (Concat(dim=1),)
    """

    name: ClassVar[str] = "merge_shards"

    dim: int | None = None
    replicated: bool = False

    def __post_init__(self) -> None:
        if (self.dim is None) != self.replicated:
            raise RuleError(
                "merge_shards: it is not said how the ranks hold the tensor",
                expected="dim, or replicated: true, and not both",
                got=f"dim {self.dim}, replicated {str(self.replicated).lower()}",
            )
        if self.dim is not None:
            refuse_negative_dims(self.name, self.dim)

    def expansion(self) -> tuple[Step, ...]:
        """Return the step that it stands for."""
        return (Deduplicate() if self.dim is None else Concat(self.dim),)
