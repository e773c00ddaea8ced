"""What a rule file says, as frozen records: parsed, but with nothing filled in yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from converter.manifest import Dim, Scalar
from converter.rules.expression import Expression
from converter.rules.template import Template

Parameter: TypeAlias = (
    "Expression | tuple[Expression, ...] | Mapping[str, Expression] | str | float"
)
Fill = Literal["zeros", "ones"]


@dataclass(frozen=True, slots=True)
class Range:
    """The integers ``first`` to ``last``, both included; ``where`` is ``file:line``."""

    where: str
    first: Expression
    last: Expression

    @property
    def names(self) -> frozenset[str]:
        """All names that the bounds mention."""
        return self.first.names | self.last.names


@dataclass(frozen=True, slots=True)
class Scope:
    """Which tensors of a source belong to the model: prefixes, or all but some prefixes.

    ``prefix`` is what source names are written without: the scope itself when it is stated as one
    prefix, nothing otherwise.
    """

    prefix: str = ""
    prefixes: tuple[str, ...] = ("",)
    excluded: tuple[str, ...] = ()

    @classmethod
    def of_prefix(cls, prefix: str) -> Scope:
        """Return the scope of all names that begin with ``prefix``, written without it."""
        return cls(prefix, (prefix,))

    def held(self, names: Iterable[str], *, behind: str = "") -> set[str]:
        """Return the source names that are in scope, all of them with ``behind`` in front."""
        within, beyond = (
            tuple(behind + prefix for prefix in stated) for stated in (self.prefixes, self.excluded)
        )
        return {name for name in names if name.startswith(within) and not name.startswith(beyond)}


@dataclass(frozen=True, slots=True)
class StepCall:
    """A step by name, with parameters that may hold expressions."""

    name: str
    parameters: Mapping[str, Parameter]
    line: int

    @property
    def expressions(self) -> Iterator[Expression]:
        """All expressions among the parameters."""
        for value in self.parameters.values():
            if isinstance(value, Mapping):
                yield from value.values()
            elif isinstance(value, tuple):
                yield from value
            elif isinstance(value, Expression):
                yield value


@dataclass(frozen=True, slots=True)
class Target:
    """A canonical tensor: its name and the shape it is declared to have."""

    name: Template
    shape: tuple[Expression, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Repeat:
    """What a rule, drop or alias is repeated over, and under which condition it counts."""

    ranges: Mapping[str, Range]
    sets: Mapping[str, Mapping[str, str]]
    when: Expression | None = None


@dataclass(frozen=True, slots=True)
class StandIn:
    """What stands in for the targets of a rule whose sources are all absent."""

    fill: Fill
    dtype: str


@dataclass(frozen=True, slots=True)
class Rule:
    """How some canonical tensors are made."""

    line: int
    sources: tuple[Template, ...]
    steps: tuple[StepCall, ...]
    targets: tuple[Target, ...]
    repeat: Repeat
    dtypes: tuple[str, ...]
    gather: str | None = None
    scatter: str | None = None
    absent: StandIn | None = None
    keep_dtype: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """Source tensors that are left out; ``equals`` is the name of the tensor they must equal."""

    line: int
    names: tuple[Template, ...]
    rest: bool
    because: str
    repeat: Repeat
    optional: bool = False
    expect: Literal["arange", "lower_triangular", "equals"] | None = None
    equals: Template | None = None
    count: Expression | None = None


@dataclass(frozen=True, slots=True)
class Alias:
    """A canonical name that is another canonical tensor."""

    line: int
    name: Template
    of: Template
    because: str
    repeat: Repeat


@dataclass(frozen=True, slots=True)
class Derived:
    """A name for the value of an expression, or for those of a list of them."""

    line: int
    value: Expression | tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Allowed:
    """Canonical tensors that may hold NaN or infinity."""

    line: int
    name: Template
    repeat: Repeat


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition on the dims, and its reason; it holds for all values of what it indexes by."""

    line: int
    that: Expression
    because: str
    ranges: Mapping[str, Range]


@dataclass(frozen=True, slots=True)
class Variant:
    """What choosing one variant overrides."""

    dims: Mapping[str, Dim] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    scope: Scope | None = None
    conventions: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def is_default(self) -> bool:
        """Whether it overrides nothing, and so holds when none of its axis is chosen."""
        return not (self.dims or self.words or self.scope or self.conventions)


@dataclass(frozen=True, slots=True)
class RuleFile:
    """A parsed rule file; ``name`` and ``sha256`` are the file's."""

    name: str
    sha256: str
    model: str
    title: str
    origin: str
    about: str
    scope: Scope
    dtypes: tuple[str, ...]
    dims: Mapping[str, Dim]
    derived: Mapping[str, Derived]
    require: tuple[Requirement, ...]
    words: Mapping[str, str]
    variants: Mapping[str, Mapping[str, Variant]]
    conventions: Mapping[str, Scalar]
    audio: Mapping[str, Scalar | Expression]
    rules: tuple[Rule, ...]
    aliases: tuple[Alias, ...]
    drops: tuple[Drop, ...]
    allow_nan: tuple[Allowed, ...]

    def where(self, line: int) -> str:
        """Return ``file:line``."""
        return f"{self.name}:{line}"
