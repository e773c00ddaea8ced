"""Where two traces part first, and what can be said of whose fault that is.

What happens in a run, in order: a call takes its inputs, the calls within it happen, it returns its
outputs. The first of these events of which a tensor parts points at the code that ran since the
last that agrees: a module that takes the same and returns something else; or the code of a caller,
between what its modules returned and what it gives to the next or returns itself.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from converter.trace_record import Call, TraceRecord

# By how much the error of an event is above all before it to be worth a look; of honest
# implementations it is above 4 nowhere: see docs/trace.md.
_STEEP = 20.0

Status = Literal["equal", "agrees", "parts", "missing"]
Kind = Literal["inputs", "module", "own code"]


@dataclass(frozen=True, slots=True)
class Event:
    """A call takes its inputs, or returns its outputs."""

    call: Call
    is_input: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that change hands."""
        return self.call.inputs if self.is_input else self.call.outputs


@dataclass(frozen=True, slots=True)
class First:
    """The first event that parts, and what it says.

    ``kind`` is ``module`` when the module ``call``, of which no part is recorded, is at fault;
    ``own code`` when what its modules return agrees, and what it makes of that does not;
    ``inputs`` when the network was given other inputs, so that nothing else can be told.
    ``tensors`` are those that part at the event; ``before`` is the call that was given them, where
    it is inputs that part. ``suspects`` are calls that may be at fault in its place, because what
    would clear them, ``unknown``, is missing; none means that it is certain.
    """

    call: Call
    kind: Kind
    event: Event
    tensors: tuple[str, ...]
    before: Call | None
    suspects: tuple[Call, ...]
    unknown: tuple[str, ...]

    @property
    def is_certain(self) -> bool:
        """Whether nothing that is missing, or not recorded, could tell otherwise."""
        return not self.suspects and not self.unknown and self.call.whole


@dataclass(frozen=True, slots=True)
class Step:
    """Where the error grows the most: to ``error``, from ``before``, the most of all before."""

    event: Event
    name: str
    before: float
    error: float


class Calls:
    """The calls of a trace as a tree."""

    def __init__(self, trace: TraceRecord) -> None:
        self.trace = trace
        self.named = {call.name: call for call in trace.calls}
        self._within: dict[str | None, list[Call]] = {}
        self._places: dict[str, int] = {}
        self._returning: dict[tuple[str | None, str], Call] = {}
        for call in trace.calls:
            siblings = self._within.setdefault(call.caller, [])
            self._places[call.name] = len(siblings)
            siblings.append(call)
            for name in call.outputs:
                self._returning.setdefault((call.caller, self.first_of(name)), call)

    def within(self, call: Call | None) -> list[Call]:
        """Return the calls that happen directly within a call, in order."""
        return self._within.get(None if call is None else call.name, [])

    def place(self, call: Call) -> int:
        """Return how many calls of the same caller happened before a call."""
        return self._places[call.name]

    def first_of(self, name: str) -> str:
        """Return the first tensor that is this one, bit for bit."""
        return self.trace.same.get(name, name)

    def returning(self, name: str, before: Call) -> Call | None:
        """Return the call before another, by the same caller, that returned this tensor."""
        call = self._returning.get((before.caller, self.first_of(name)))
        return call if call and self.place(call) < self.place(before) else None

    def caller(self, call: Call) -> Call | None:
        """Return the call within which a call happens."""
        return None if call.caller is None else self.named[call.caller]

    def events(self) -> Iterator[Event]:
        """Yield all events in the order in which they happened."""
        waiting = [Event(call, is_input=True) for call in reversed(self.within(None))]
        while waiting:
            event = waiting.pop()
            yield event
            if event.is_input:
                waiting.append(Event(event.call, is_input=False))
                inner = reversed(self.within(event.call))
                waiting.extend(Event(call, is_input=True) for call in inner)


def find_first(calls: Calls, status: Mapping[str, Status]) -> First | None:
    """Return where the traces part first; None where nothing that both have parts."""
    known = _Known(calls, status)
    for event in calls.events():
        parting = tuple(name for name in event.names if status[name] == "parts")
        if parting:
            return _judge(calls, event, parting, known)
        known.saw(event)
    return None


class _Known:
    """What is known to agree, from the events so far.

    A tensor that the other file lacks counts as known if it is, bit for bit, one that agrees: a
    module that is given what another returned.
    """

    def __init__(self, calls: Calls, status: Mapping[str, Status]) -> None:
        self._first_of = calls.first_of
        self._status = status
        self._agreeing: set[str] = set()

    def saw(self, event: Event) -> None:
        """Remember what agrees."""
        for name in event.names:
            if self._status[name] in ("equal", "agrees"):
                self._agreeing.add(self._first_of(name))

    def lacks(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return those names of which nothing is known."""
        return tuple(
            name
            for name in names
            if self._status[name] == "missing" and self._first_of(name) not in self._agreeing
        )


def _judge(calls: Calls, event: Event, parting: tuple[str, ...], known: _Known) -> First:
    caller = calls.caller(event.call) if event.is_input else event.call
    if caller is None:
        return First(event.call, "inputs", event, parting, event.call, (), ())
    suspects, unknown = _doubts(calls, caller, event, known)
    inner = calls.within(caller)
    kind: Kind = "own code" if inner or not caller.whole else "module"
    return First(
        call=caller,
        kind=kind,
        event=event,
        tensors=parting,
        before=event.call if event.is_input else None,
        suspects=suspects,
        unknown=unknown,
    )


def _doubts(
    calls: Calls, culprit: Call, event: Event, known: _Known
) -> tuple[tuple[Call, ...], tuple[str, ...]]:
    """Return who else may be at fault, and the tensors that would tell; the nearest first."""
    search = _Search(calls, known)
    search.code_of(culprit, event.call if event.is_input else None)
    search.inputs_of(culprit)
    search.run()
    search.suspects.pop(culprit.name, None)
    return tuple(search.suspects.values()), tuple(search.unknown)


class _Search:
    """Follows what is not known to where it came from."""

    def __init__(self, calls: Calls, known: _Known) -> None:
        self.suspects: dict[str, Call] = {}
        self.unknown: dict[str, None] = {}  # in the order of their finding
        self._calls, self._known = calls, known
        self._waiting: deque[tuple[Call, str]] = deque()
        self._followed: set[str] = set()
        self._read: dict[str, int] = {}

    def code_of(self, caller: Call, before: Call | None) -> None:
        """Add the modules whose outputs a caller may have read before it calls another."""
        inner = self._calls.within(caller)
        begin = self._read.get(caller.name, 0)
        end = len(inner) if before is None else self._calls.place(before)
        for call in inner[begin:end]:
            self._returned_by(call, self._known.lacks(call.outputs))
        self._read[caller.name] = max(begin, end)

    def inputs_of(self, call: Call) -> None:
        """Follow what a call was given."""
        self._add(call, self._known.lacks(call.inputs))

    def run(self) -> None:
        """Follow everything to its end."""
        while self._waiting:
            self._follow(*self._waiting.popleft())

    def _add(self, call: Call, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._followed:
                self._followed.add(name)
                self._waiting.append((call, name))

    def _returned_by(self, call: Call, names: Sequence[str]) -> None:
        if names:
            self.suspects[call.name] = call
            self.unknown.update(dict.fromkeys(names))
            self.inputs_of(call)

    def _follow(self, call: Call, name: str) -> None:
        self.unknown[name] = None
        caller = self._calls.caller(call)
        if caller is None:
            return
        self.suspects.setdefault(caller.name, caller)
        # Handed on as it is, by the caller's caller or from a module: else it is the caller's.
        first = self._calls.first_of(name)
        if handed := [other for other in caller.inputs if self._calls.first_of(other) == first]:
            self._add(caller, handed)
        elif returning := self._calls.returning(name, call):
            returned = [o for o in returning.outputs if self._calls.first_of(o) == first]
            self._returned_by(returning, returned)
        else:
            self.code_of(caller, call)
            self.inputs_of(caller)


def find_step(
    calls: Calls, errors: Mapping[str, float], roundings: Mapping[str, float]
) -> Step | None:
    """Return where the error grows the most; None where it nowhere grows steeply.

    ``errors`` are those of the tensors that were measured, relative to their magnitude;
    ``roundings`` what their dtypes round by, below which no error is told from another.
    """
    steepest: Step | None = None
    most, highest = _STEEP, 0.0
    for event in calls.events():
        grown = highest
        for name in event.names:
            error = errors.get(name, 0.0)
            if error > most * max(highest, roundings.get(name, math.inf)):
                most = error / max(highest, roundings[name])
                steepest = Step(event, name, highest, error)
            grown = max(grown, error)
        highest = grown
    return steepest
