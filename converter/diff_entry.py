"""What comes out when two checkpoints are compared: one entry for each tensor, or pair of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from converter.errors import UsageError
from converter.spec import Header

Kind = Literal[
    "equal",
    "within",
    "unread",
    "renamed",
    "reshaped",
    "transposed",
    "rows-permuted",
    "rearranged",
    "cast",
    "changed",
    "ambiguous",
    "only-here",
    "only-there",
]
Level = Literal["header", "full"]

# Two tensors of these kinds are not told apart: by their values, or since those were not read.
SAME: frozenset[Kind] = frozenset({"equal", "within", "unread"})


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Which differences are tiny: those of at most ``atol + rtol * max(|here|, |there|)``.

    Raises UsageError for a bound that is negative or not finite.
    """

    atol: float = 0.0
    rtol: float = 0.0

    def __post_init__(self) -> None:
        for name, bound in (("atol", self.atol), ("rtol", self.rtol)):
            if not (math.isfinite(bound) and bound >= 0):
                expected = "a finite number, 0 or more"
                raise UsageError(f"the tolerance {name}", expected=expected, got=str(bound))


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the values of two tensors are apart, in float64, element by element.

    ``differing`` counts the elements of other bits (of other values, where the dtypes differ). Of
    those ``nonfinite`` are NaN or infinite on a side: there is no distance between them, and they
    are left out of the figures. ``largest`` and ``mean`` are of ``|here - there|``,
    ``largest_relative`` is of that over ``max(|here|, |there|)``; ``cosine`` is None where a side
    is zero throughout. A figure that a double cannot hold is None. ``beyond`` counts the elements
    that are not within the tolerance. The two parts of a complex number are two elements.
    """

    elements: int
    differing: int
    nonfinite: int
    largest: float | None
    largest_relative: float | None
    mean: float | None
    cosine: float | None
    beyond: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One finding: how the tensors ``here`` and those ``there`` are related.

    There is one on each side, or on one of them; several only where it is ambiguous which is
    which. ``dims`` is the order in which a transposed one has the dims of the one here, ``rows``
    counts the permuted rows that lie elsewhere, ``rounded`` tells of a cast whether values were
    rounded, ``note`` what is not known, and why.
    """

    kind: Kind
    here: tuple[str, ...] = ()
    there: tuple[str, ...] = ()
    dims: tuple[int, ...] = ()
    rows: int | None = None
    rounded: bool | None = None
    difference: Difference | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """What one side holds: its tensors, and their digests as far as they are known."""

    path: str
    header: Header
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides and how they differ; ``level`` ``header`` means that no values were read."""

    here: Inventory
    there: Inventory
    level: Level
    tolerance: Tolerance | None
    entries: tuple[Entry, ...]

    @property
    def differs(self) -> bool:
        """Whether anything differs, as far as it was looked at."""
        return any(entry.kind not in SAME for entry in self.entries)

    @property
    def counts(self) -> Mapping[Kind, int]:
        """How many entries there are of each kind."""
        return Counter(entry.kind for entry in self.entries)
