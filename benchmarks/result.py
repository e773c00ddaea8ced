"""Results as values, and as the JSON file that keeps them: one file for each machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from benchmarks.measure import Run, middle

FORMAT = 1
SCHEMA = Path(__file__).with_name("results.schema.json")

Sense: TypeAlias = Literal["at most", "at least", "reported"]
Fact: TypeAlias = "int | float | str"


class ResultError(Exception):
    """A results file is not what it must be."""


@dataclass(frozen=True)
class Bar:
    """A figure and what it must be: ``at most`` or ``at least`` the bound; or only reported.

    ``unit`` is ``ratio``, ``s``, ``bytes``, ``bytes/s``, or empty for a count.
    """

    figure: str
    value: float
    unit: str
    sense: Sense = "reported"
    bound: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the figure is what it must be; None when it is only reported."""
        if self.bound is None:
            return None
        return self.value <= self.bound if self.sense == "at most" else self.value >= self.bound


@dataclass(frozen=True)
class Measured:
    """A contender and its runs."""

    name: str
    what: str
    runs: tuple[Run, ...]

    def median(self, figure: str) -> float:
        """Return the median of a figure of its runs."""
        return middle(self.runs, figure)

    def has(self, figure: str) -> bool:
        """Return whether every run has the figure."""
        return all(figure in run for run in self.runs)


@dataclass(frozen=True)
class Result:
    """What one bench found, at one size.

    ``quantities`` are the figures of the runs that it is about; ``facts`` are what must be known to
    read them; ``skipped`` says of contenders that were left out why.
    """

    bench: str
    title: str
    quantities: tuple[str, ...]
    date: str
    facts: Mapping[str, Fact]
    contenders: tuple[Measured, ...]
    bars: tuple[Bar, ...]
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What a newer result must share to replace this one."""
        return (self.bench, self.size_bytes or 0)


@dataclass(frozen=True)
class Results:
    """All results of one machine."""

    machine: Mapping[str, Fact]
    results: tuple[Result, ...]

    def joined(self, newer: Sequence[Result]) -> Results:
        """Return these results with newer ones in their place, in order of bench and size."""
        by_key = {result.key: result for result in (*self.results, *newer)}
        return Results(self.machine, tuple(by_key[key] for key in sorted(by_key)))


def measured(
    contenders: Sequence[tuple[str, str]], runs: Mapping[str, Sequence[Run]]
) -> tuple[Measured, ...]:
    """Return contenders, given as name and what they do, with their runs."""
    return tuple(Measured(name, what, tuple(runs[name])) for name, what in contenders)


def encode(results: Results) -> str:
    """Return the text of a results file."""
    document = {
        "format": FORMAT,
        "machine": dict(results.machine),
        "results": [_encode_result(result) for result in results.results],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _encode_result(result: Result) -> dict[str, Any]:
    document = asdict(result)
    for bar, encoded in zip(result.bars, document["bars"], strict=True):
        encoded["holds"] = bar.holds
    for contender, encoded in zip(result.contenders, document["contenders"], strict=True):
        figures = [figure for figure in contender.runs[0] if contender.has(figure)]
        encoded["medians"] = {figure: contender.median(figure) for figure in figures}
    return document


def decode(text: str) -> Results:
    """Return the results of a file's text. Raises ResultError when it is not one."""
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise ResultError(f"format {document['format']!r}, not {FORMAT}")
        results = tuple(_decode_result(result) for result in document["results"])
        return Results(document["machine"], results)
    except (ValueError, KeyError, TypeError) as error:
        raise ResultError(f"not a results file: {error!r}") from error


def _decode_result(document: dict[str, Any]) -> Result:
    contenders = tuple(
        Measured(item["name"], item["what"], tuple(item["runs"])) for item in document["contenders"]
    )
    bars = tuple(
        Bar(item["figure"], item["value"], item["unit"], item["sense"], item["bound"])
        for item in document["bars"]
    )
    plain = ("bench", "title", "date", "facts", "skipped", "size_bytes")
    return Result(
        **{key: document[key] for key in plain},
        contenders=contenders,
        bars=bars,
        quantities=tuple(document["quantities"]),
        notes=tuple(document["notes"]),
    )


def load(path: Path) -> Results:
    """Return the results of a file. Raises ResultError."""
    try:
        return decode(path.read_text("utf-8"))
    except ResultError as error:
        raise ResultError(f"{path}: {error}") from error


def keep(path: Path, machine: Mapping[str, Fact], newer: Sequence[Result]) -> None:
    """Write results into a file, beside those that it holds. Raises ResultError.

    A file belongs to one machine: figures of two can be read beside each other, not as one table.
    """
    before = load(path) if path.exists() else Results(machine, ())
    if before.machine != machine:
        raise ResultError(f"{path} holds results of another machine: give another --results")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(encode(before.joined(newer)), "utf-8")
