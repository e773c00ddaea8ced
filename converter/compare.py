"""Compare a trace with another, or with what a port of the network wrote, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converter.compare_first import Calls, Event, First, Status, Step, find_first, find_step
from converter.compare_names import read_map, renamed
from converter.compare_values import ROUNDING, Measure, Tolerance, measure
from converter.errors import MismatchError, SourceError, UsageError
from converter.finding import listed
from converter.progress import Progress, unheard
from converter.source import Source, open_source
from converter.source.stored import Stored
from converter.spec import TensorSpec
from converter.trace_record import TraceRecord, from_metadata, is_trace

Inputs = Literal["equal", "agree", "differ", "unknown"]


@dataclass(frozen=True, slots=True)
class Compared:
    """A tensor of the first trace, and the other's; None for what that has not.

    ``measure`` is None where there is nothing to measure: one is missing, or the shapes differ.
    """

    name: str
    event: Event
    spec: TensorSpec
    other: TensorSpec | None
    measure: Measure | None

    @property
    def status(self) -> Status:
        """Whether the bytes are equal, the values agree, they part, or one is missing."""
        if self.other is None:
            return "missing"
        if self.measure is None or not self.measure.agrees:
            return "parts"
        return "equal" if self.measure.same_bytes else "agrees"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the files: what it says of itself, if it is a trace, and how many tensors it has."""

    path: Path
    trace: TraceRecord | None
    tensors: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """All tensors of the first trace in order of execution, and where the two part first.

    ``extra`` are names of the other file that the trace does not have. ``step`` is where the error
    grows steeply, whether or not it is within the tolerance. ``complete`` says that a
    tensor that the other file lacks is a difference too.
    """

    first_side: Side
    other_side: Side
    tensors: tuple[Compared, ...]
    extra: tuple[str, ...]
    first: First | None
    step: Step | None
    complete: bool

    def count(self, status: Status) -> int:
        """Return how many tensors are of a status."""
        return sum(tensor.status == status for tensor in self.tensors)

    @property
    def holds(self) -> bool:
        """Whether nothing parts and, if all is asked for, nothing is missing."""
        return self.first is None and not (self.complete and self.count("missing"))

    @property
    def inputs(self) -> Inputs:
        """Whether the networks were run on the same inputs."""
        found = {t.status for t in self.tensors if t.event.is_input and t.event.call.module == ""}
        if "parts" in found:
            return "differ"
        if not found or "missing" in found:
            return "unknown"
        return "equal" if found == {"equal"} else "agree"


class _Opened:
    """A file of tensors, by the names of the first trace."""

    def __init__(self, path: Path, stack: ExitStack, names: Mapping[str, str] | None) -> None:
        self.source: Source = stack.enter_context(open_source(path))
        if not self.source.files:
            what = "a header alone has no values to compare"
            raise SourceError(what, where=str(path), expected="a .safetensors file")
        self.path = path
        header = self.source.header
        self.trace = None
        if is_trace(self.source.metadata):
            self.trace = from_metadata(self.source.metadata, header.keys(), where=str(path))
        same = self.trace.same if self.trace is not None else {}
        # Of equal tensors the first stands for all, so that none is read twice.
        held = {name: same.get(name, name) for name in (*header, *same)}
        theirs = renamed(list(held), names) if names else {name: name for name in held}
        self.stored = {ours: held[name] for ours, name in theirs.items()}

    def tensor(self, name: str) -> Stored | None:
        """Return what the file holds under a name of the trace."""
        stored = self.stored.get(name)
        return None if stored is None else Stored(self.source, stored, self.source.header[stored])

    @property
    def side(self) -> Side:
        """What there is to say of the file."""
        return Side(self.path, self.trace, len(self.stored))


def compare(
    path: Path,
    other: Path,
    *,
    names: Path | None = None,
    tolerance: Tolerance,
    complete: bool = False,
    progress: Progress = unheard,
) -> Comparison:
    """Compare the trace at ``path`` with the file of tensors at ``other``.

    ``names`` is a file that says what of theirs is what here. Raises UsageError for a map or a
    tolerance that cannot be, SourceError for files that cannot be read or are no traces, and
    MismatchError when they have no name in common.
    """
    for word, value in (("atol", tolerance.atol), ("rtol", tolerance.rtol)):
        if value is not None and not 0 <= value < math.inf:
            raise UsageError(f"{word} is not a tolerance", expected="0 or more", got=str(value))
    mapping = None if names is None else read_map(names)
    with ExitStack() as stack:
        ours, theirs = _Opened(path, stack, None), _Opened(other, stack, mapping)
        if ours.trace is None:
            raise _no_trace(ours, theirs)
        calls = Calls(ours.trace)
        events = [(name, event) for event in calls.events() for name in event.names]
        _require_common(theirs, [name for name, _ in events])
        compared = _Comparing(ours, theirs, tolerance, progress).all(events)
        known = {name for name, _ in events}
        for file in (ours.source, theirs.source):
            file.check_unchanged()
        return Comparison(
            first_side=ours.side,
            other_side=theirs.side,
            tensors=compared,
            extra=tuple(name for name in theirs.stored if name not in known),
            first=find_first(calls, {tensor.name: tensor.status for tensor in compared}),
            step=_steepest(calls, compared),
            complete=complete,
        )


def _steepest(calls: Calls, compared: Sequence[Compared]) -> Step | None:
    errors: dict[str, float] = {}
    roundings: dict[str, float] = {}
    for tensor in compared:
        if tensor.measure is None or tensor.other is None:
            continue
        dtypes = (tensor.spec.dtype, tensor.other.dtype)
        is_finite = math.isfinite(tensor.measure.largest) and math.isfinite(tensor.measure.error)
        if is_finite and all(dtype in ROUNDING for dtype in dtypes):
            errors[tensor.name] = tensor.measure.error
            roundings[tensor.name] = max(ROUNDING[dtype] for dtype in dtypes)
    return find_step(calls, errors, roundings)


class _Comparing:
    def __init__(
        self, ours: _Opened, theirs: _Opened, tolerance: Tolerance, progress: Progress
    ) -> None:
        self._ours, self._theirs = ours, theirs
        self._tolerance, self._progress = tolerance, progress
        self._measured: dict[tuple[str, str], Measure | None] = {}

    def all(self, events: list[tuple[str, Event]]) -> tuple[Compared, ...]:
        pairs = {
            (one.name, other.name): one.spec.nbytes
            for name, _ in events
            if (one := self._ours.tensor(name)) and (other := self._theirs.tensor(name))
        }
        total = sum(pairs.values())
        self._tell = lambda done, _: self._progress(done, total)
        return tuple(self._one(name, event) for name, event in events)

    def _one(self, name: str, event: Event) -> Compared:
        one, other = self._ours.tensor(name), self._theirs.tensor(name)
        assert one is not None
        if other is None:
            return Compared(name, event, one.spec, None, None)
        pair = (one.name, other.name)
        if pair not in self._measured:
            same_shape = one.spec.shape == other.spec.shape
            self._measured[pair] = (
                measure(one, other, self._tolerance, self._tell) if same_shape else None
            )
        return Compared(name, event, one.spec, other.spec, self._measured[pair])


def _no_trace(ours: _Opened, theirs: _Opened) -> SourceError:
    swapped = theirs.trace is not None
    return SourceError(
        "the first file is not a trace, so the order of execution is not known",
        code="trace",
        where=str(ours.path),
        expected="a file that  convert trace  or converter.runtime.trace wrote",
        hint="give the other file first" if swapped else "record one: convert trace --help",
    )


def _require_common(theirs: _Opened, names: list[str]) -> None:
    if not any(name in theirs.stored for name in names):
        raise MismatchError(
            "the two files have no name in common",
            code="names",
            where=str(theirs.path),
            expected=listed(names),
            got=listed(theirs.stored),
            hint="write the names of the trace, or say which is which in a file for --map",
        )
