"""The picture of a lineage: where each name, step and line of it stands.

There are two of it. On the wide one, sources stand to the left of their targets; on the narrow
one, above them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from converter.finding import counted
from converter.page.heatmaps import shortened
from converter.page.lineage import Flow, How, lane_of

_LINE = 17
_GAP = 11
_CHAR = 7.25  # of a monospaced font of 12 px
_MOST_FLOWS = 240
_MOST_LINES = 4
_MOST_NAMES = 24
_WIDEST_EDGE = 9.0
_STEP_CHARS = 30
_FLOWS_OF_A_LANE = 4
_SAID: Mapping[How, str] = {
    "renamed": "renamed only",
    "stand-in": "filled in",
    "dropped": "dropped",
    "steps": "through steps",
}

_WIDE, _LEFT, _MIDDLE, _RIGHT = 1060, 396, 530, 664
_NARROW, _NARROW_LEFT, _NARROW_RIGHT = 358, 20, 34


@dataclass(frozen=True, slots=True)
class Label:
    """Text at a place; ``title`` is all of it where some is left out."""

    x: float
    y: float
    text: str
    look: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Box:
    """The steps of a unit of work, line by line; ``x`` and ``y`` are its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]
    title: str
    look: str


@dataclass(frozen=True, slots=True)
class Edge:
    """A line between names, as thick as what flows through it is large."""

    path: str
    width: float
    look: str


@dataclass(frozen=True, slots=True)
class Picture:
    """All shapes of one lane, and in words what they show."""

    width: float
    height: float
    about: str
    labels: tuple[Label, ...]
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class Lane:
    """A part of the model, with its pictures for a desk and for a phone; ``size`` is in bytes."""

    title: str
    size: int
    wide: Picture
    narrow: Picture


def lanes_of(flows: Sequence[Flow]) -> tuple[tuple[Lane, ...], int]:
    """Return the lanes, those dropped last, and how many flows they have no room for."""
    shown = _largest(flows)
    largest = max((flow.size for flow in shown), default=0) or 1

    def thick(flow: Flow) -> float:
        return round(1.2 + (_WIDEST_EDGE - 1.2) * math.sqrt(flow.size / largest), 1)

    lanes = tuple(
        Lane(
            title,
            sum(flow.size for flow in lane),
            wide=_drawn(lane, _Wide(), thick),
            narrow=_drawn(lane, _Narrow(), thick),
        )
        for title, lane in _lanes(shown).items()
    )
    return lanes, len(flows) - len(shown)


@dataclass(slots=True)
class _Draft:
    """What is drawn so far."""

    labels: list[Label] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)


def wrapped(text: str, width: int) -> list[str]:
    """Break a name into lines, behind dots and blanks where there are some."""
    text = shortened(text, width * _MOST_LINES)
    lines = []
    while len(text) > width:
        at = max(text.rfind(mark, width // 3, width - 1) for mark in ". ")
        cut = at + 1 if at > 0 else width
        lines.append(text[:cut].rstrip())
        text = text[cut:]
    return [*lines, text]


class _Wide:
    """Where the names of one flow stand when sources are to the left of targets."""

    width = _WIDE

    def draw(self, picture: _Draft, flow: Flow, y: float, scale: float) -> float:
        """Add one flow from ``y`` downwards; return where it ends."""
        sources = [(name, wrapped(name, 53)) for name in _some(flow.sources)]
        targets = [(name, wrapped(name, 53)) for name in _target_texts(flow)]
        steps = _step_lines(flow, 74)
        heights = [
            _LINE * sum(len(lines) for _, lines in sources),
            _LINE * sum(len(lines) for _, lines in targets),
            _LINE * len(steps) + 10,
        ]
        tall = max(heights)
        middle = y + tall / 2
        box = _box(flow, steps, _MIDDLE, middle)
        left = self._column(picture, sources, y + (tall - heights[0]) / 2, _LEFT - 8, "source")
        right = self._column(picture, targets, y + (tall - heights[1]) / 2, _RIGHT + 8, "target")
        if box and flow.how == "dropped":
            box = replace(box, x=_LEFT + 60)
        ends = (box.x, box.x + box.width) if box else (_MIDDLE, _MIDDLE)
        for port in left:
            width = scale / max(1, len(left))
            picture.edges.append(_across(_LEFT, port, ends[0], middle, width, flow))
        for port in right[: len(flow.targets)]:
            width = scale / max(1, len(flow.targets))
            picture.edges.append(_across(ends[1], middle, _RIGHT, port, width, flow))
        if box:
            picture.boxes.append(box)
        elif flow.count > 1:
            picture.labels.append(Label(_MIDDLE, middle - 5 - scale / 2, f"×{flow.count}", "times"))
        return y + tall

    def _column(
        self,
        picture: _Draft,
        names: Iterable[tuple[str, list[str]]],
        y: float,
        x: float,
        look: str,
    ) -> list[float]:
        """Add names from ``y`` downwards; return the middle of each."""
        ports = []
        for name, lines in names:
            for number, text in enumerate(lines):
                title = name if len("".join(lines)) < len(name) else ""
                picture.labels.append(Label(x, y + _LINE * number + 12.5, text, look, title))
            ports.append(y + _LINE * len(lines) / 2)
            y += _LINE * len(lines)
        return ports


class _Narrow:
    """Where the names of one flow stand when sources are above targets."""

    width = _NARROW

    def draw(self, picture: _Draft, flow: Flow, y: float, scale: float) -> float:
        """Add one flow from ``y`` downwards; return where it ends."""
        line = _NARROW_LEFT - 10
        start = y + 4
        for name in _some(flow.sources):
            for text in wrapped(name, 46):
                picture.labels.append(Label(_NARROW_LEFT, y + 12.5, text, "source-above"))
                y += _LINE
        steps = _step_lines(flow, 44)
        if box := _box(flow, steps, None, y + 3 + (_LINE * len(steps) + 8) / 2):
            picture.boxes.append(box)
            y += box.height + 6
        elif flow.count > 1:
            picture.labels.append(Label(_NARROW_LEFT, y + 11, f"×{flow.count}", "times-left"))
            y += 14
        ends = []
        for name in _target_texts(flow):
            ends.append(y + 9)
            for text in wrapped(name, 44):
                picture.labels.append(Label(_NARROW_RIGHT, y + 12.5, text, "target"))
                y += _LINE
        width = min(scale, 6.0)
        for end in ends[: len(flow.targets)]:
            path = f"M{line} {start:g}V{end - 6:g}q0 6 6 6H{_NARROW_RIGHT - 5}"
            picture.edges.append(Edge(path, round(width / len(flow.targets) + 0.6, 1), flow.how))
        if not ends and box:
            picture.edges.append(Edge(f"M{line} {start:g}V{box.y:g}", 1.5, flow.how))
        return y


def _drawn(flows: Sequence[Flow], how: _Wide | _Narrow, thick: Callable[[Flow], float]) -> Picture:
    draft = _Draft()
    y = 12.0
    for flow in flows:
        y = how.draw(draft, flow, y, thick(flow)) + _GAP
    shapes = tuple(draft.labels), tuple(draft.boxes), tuple(draft.edges)
    return Picture(how.width, round(y), _about(flows), *shapes)


def _largest(flows: Sequence[Flow]) -> list[Flow]:
    """Return the flows that there is room for, in their order: those of the most bytes."""
    if len(flows) <= _MOST_FLOWS:
        return list(flows)
    by_size = sorted(range(len(flows)), key=lambda n: (-flows[n].size, n))
    return [flows[n] for n in sorted(by_size[:_MOST_FLOWS])]


def _lanes(flows: Iterable[Flow]) -> dict[str, list[Flow]]:
    """Sort flows by the part of the model that they make, and what was dropped last.

    Small parts that follow each other share a lane.
    """
    lanes: dict[str, list[Flow]] = {}
    dropped = []
    for flow in flows:
        if flow.how == "dropped":
            dropped.append(flow)
        else:
            lanes.setdefault(shortened(lane_of(flow.targets[0]), 40), []).append(flow)
    joined: dict[str, list[Flow]] = {}
    names: list[str] = []
    small: list[Flow] = []
    for name, lane in [*lanes.items(), ("", [])]:
        if lane and len(lane) < _FLOWS_OF_A_LANE and len(small) < 2 * _FLOWS_OF_A_LANE:
            names, small = [*names, name], [*small, *lane]
            continue
        if small:
            joined[", ".join(names)] = small
            names, small = [], []
        if len(lane) >= _FLOWS_OF_A_LANE:
            joined[name] = lane
        elif lane:
            names, small = [name], lane
    return {**joined, "dropped, and why": dropped} if dropped else joined


def _about(flows: Sequence[Flow]) -> str:
    """Say in words what the picture shows, for who cannot see it."""
    units = {how: sum(f.count for f in flows if f.how == how) for how in _SAID}
    steps = sorted({step.partition(" ")[0] for flow in flows for step in flow.steps})
    said = [f"{counted(n, 'unit')} of work {_SAID[how]}" for how, n in units.items() if n]
    through = f" ({', '.join(steps)})" if steps else ""
    return f"From source to canonical names: {'; '.join(said)}{through}."


def _some(names: Sequence[str]) -> list[str]:
    left = len(names) - _MOST_NAMES
    return list(names) if left <= 0 else [*names[:_MOST_NAMES], f"and {left} more"]


def _target_texts(flow: Flow) -> list[str]:
    return [*_some(flow.targets), *(f"= {alias}" for alias in flow.aliases)]


def _step_lines(flow: Flow, reason_chars: int) -> list[str]:
    if flow.how == "dropped":
        return wrapped(flow.note, reason_chars)
    steps = [line for step in flow.steps for line in wrapped(step, _STEP_CHARS)]
    return wrapped(flow.note, _STEP_CHARS) if flow.note else steps


def _box(flow: Flow, lines: Sequence[str], centre: float | None, middle: float) -> Box | None:
    if not lines:
        return None
    times = f"×{flow.count}" if flow.count > 1 else ""
    texts = [*lines[:-1], f"{lines[-1]}  {times}".rstrip()]
    width = round(max(map(len, texts)) * 6.7 + 18, 1)
    height = 15 * len(texts) + 8
    x = _NARROW_LEFT if centre is None else centre - width / 2
    title = flow.note or "; ".join(flow.steps)
    return Box(round(x, 1), middle - height / 2, width, height, tuple(texts), title, flow.how)


def _across(x1: float, y1: float, x2: float, y2: float, width: float, flow: Flow) -> Edge:
    bend = (x1 + x2) / 2
    path = f"M{x1:g} {y1:g}C{bend:g} {y1:g} {bend:g} {y2:g} {x2:g} {y2:g}"
    return Edge(path, round(max(width, 1.0), 1), flow.how)
