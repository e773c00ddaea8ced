"""Where a tensor comes from, what happens to it and where it goes: one name, traced both ways.

What is traced is one unit of work: all of its sources, its steps with the tensors between them,
all of its targets. ``explain_manifest`` takes it from a manifest, ``explain_plan`` from a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from converter.errors import ConverterError, UsageError
from converter.finding import closest
from converter.manifest import Statistics
from converter.spec import TensorSpec
from converter.steps.chain import infer_chain
from converter.steps.step import Specs, Step, step_parameters

Kind = Literal["canonical", "alias", "source", "dropped", "absent", "out-of-scope"]
By = Literal["manifest", "plan"]

ALL_BELOW = "**"


@dataclass(frozen=True, slots=True)
class Stage:
    """A step, and the tensors that come out of it; None where they are not known."""

    name: str
    parameters: Mapping[str, object]
    specs: Specs | None


@dataclass(frozen=True, slots=True)
class Place:
    """A canonical tensor and where it lies: ``offset`` in bytes from the start of ``file``.

    ``sha256`` and ``stats`` are those of a tensor that was made.
    """

    name: str
    spec: TensorSpec
    file: str
    offset: int
    sha256: str | None = None
    stats: Statistics | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """One unit of work.

    ``where`` is the rule, with the values of its indices and, for each of its sets, the word in
    the source and what it becomes. ``fill`` is what stands in where all sources are ``absent``.
    """

    sources: tuple[tuple[str, TensorSpec | None], ...]
    stages: tuple[Stage, ...]
    targets: tuple[Place, ...]
    where: str | None = None
    indices: Mapping[str, int] = field(default_factory=dict)
    words: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    fill: str | None = None
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Role:
    """One thing that a name stands for.

    ``of`` is the tensor that an alias is; ``because`` says why one is dropped, aliased or out of
    scope, ``value`` what a dropped one is, or must be, shown to be, ``where`` the line that says
    so.
    """

    name: str
    kind: Kind
    trace: Trace | None = None
    spec: TensorSpec | None = None
    of: str | None = None
    because: str | None = None
    value: str | None = None
    where: str | None = None


Lookup: TypeAlias = Callable[[str], Sequence[Role]]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What names stand for in one conversion, which is one that was made or one that would be.

    ``rules`` is the rule file, ``files`` are those of the source, as far as they are known.
    """

    by: By
    model: str
    rules: str
    rules_sha256: str
    files: tuple[str, ...]
    roles: tuple[Role, ...]


def roles_of(pattern: str, names: Iterable[str], lookup: Lookup, *, beyond: str = "") -> list[Role]:
    """Return all roles of a name, or of all names that begin with what is before a final ``**``.

    A name may have two, one in the source and one among the canonical tensors. ``beyond`` says
    what else there is that has no name here. Raises UsageError where there is none.
    """
    known = dict.fromkeys(names)
    prefix = pattern.removesuffix(ALL_BELOW)
    if prefix != pattern:
        wanted = [name for name in known if name.startswith(prefix)]
    else:
        wanted = [pattern] if pattern in known else []
    if wanted:
        return [role for name in wanted for role in lookup(name)]
    near = next((name for name in known if name.endswith(f".{prefix}")), None)
    near = near or closest(prefix, known)
    raise UsageError(
        "there is no tensor of that name",
        code="unknown-tensor",
        tensor=pattern,
        expected=f"one of the {len(known):,} names of the source and of canonical tensors{beyond}",
        hint=f"did you mean {near!r}?" if near and prefix else "end it in ** for all that begin so",
    )


def stages_of(steps: Sequence[Step], given: Specs | None) -> tuple[Stage, ...]:
    """Return each step with what comes out of it, as far as it follows from the specs ``given``."""
    stages = []
    specs = given
    for step in steps:
        if specs is not None:
            try:
                specs = infer_chain((step,), specs)
            except ConverterError:
                specs = None
        stages.append(Stage(step.name, step_parameters(step), specs))
    return tuple(stages)
