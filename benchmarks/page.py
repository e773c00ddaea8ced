"""The page of the benches: docs/benchmarks.md and its plots, from the results beside them.

Every figure on it comes from a results file; where there is none, there is no page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.measure import ROOT
from benchmarks.result import SCHEMA, Bar, Fact, Measured, Result, ResultError, Results, load

DOCS = ROOT / "docs"
FOLDER = "benchmarks"
PAGE = "benchmarks.md"

UNITS = {
    "seconds": ("time", "s"),
    "cpu_seconds": ("time of the cores", "s"),
    "peak_rss_bytes": ("peak memory", "bytes"),
    "load_seconds": ("load", "s"),
    "touched_seconds": ("load and touch", "s"),
    "again_seconds": ("again", "s"),
    "load_bytes_per_second": ("rate", "bytes/s"),
    "again_bytes_per_second": ("rate, again", "bytes/s"),
}
# What the tables of a bench show beside its quantities, where the runs have it.
BESIDE = (
    "load_seconds",
    "again_seconds",
    "again_bytes_per_second",
    "cpu_seconds",
    "seconds",
    "peak_rss_bytes",
)

INTRODUCTION = Path(__file__).with_name("introduction.md")


def label(size_bytes: int) -> str:
    """Return a size as people say it."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.3g} {name}"
    return f"{size_bytes} B"


def amount(value: float, unit: str) -> str:
    """Return a value with its unit."""
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    if unit == "bytes/s":
        return f"{value / 1e9:,.2f} GB/s"
    if unit == "ratio":
        return f"{value:.2f} ×"
    if unit == "s":
        return f"{value:.3f} s" if value < 1 else f"{value:.2f} s"
    return f"{value:g}"


def number(value: float, figure: str) -> str:
    """Return the value of a figure of a run with its unit."""
    return amount(value, UNITS[figure][1])


def bar_text(bar: Bar) -> str:
    """Return a figure, and what it must be."""
    measured = amount(bar.value, bar.unit)
    if bar.bound is None:
        return measured
    return f"{measured}, {bar.sense} {amount(bar.bound, bar.unit)}"


def verdict(bar: Bar) -> str:
    """Return whether a figure is what it must be, in a word."""
    return {True: "holds", False: "MISSED", None: "reported"}[bar.holds]


def heading(found: Result) -> str:
    """Return the title of a result with its size."""
    return found.title if found.size_bytes is None else f"{found.title}, {label(found.size_bytes)}"


def plot_name(stem: str, found: Result) -> str:
    """Return the file name of the plot of a result."""
    size = "" if found.size_bytes is None else f"-{label(found.size_bytes).replace(' ', '')}"
    return f"{stem}-{found.bench}{size}.svg"


def page(files: Mapping[str, Results]) -> str:
    """Return the page of some results files, by the stems of their names."""
    parts = [INTRODUCTION.read_text("utf-8").rstrip()]
    for stem, results in files.items():
        parts += [f"## {machine_title(results.machine)}", machine_text(results.machine)]
        parts.append(bars_table(results))
        for found in results.results:
            parts += section(stem, found)
    return "\n\n".join(parts) + "\n"


def machine_title(machine: Mapping[str, Fact]) -> str:
    """Return a machine in a few words."""
    return f"On {machine['cores']} cores, {machine['cpu']}"


def machine_text(machine: Mapping[str, Fact]) -> str:
    """Return all that is known of a machine."""
    rest = {key: value for key, value in machine.items() if key not in ("cores", "cpu")}
    return ", ".join(fact_text(key, value) for key, value in rest.items()) + "."


def bars_table(results: Results) -> str:
    """Return every figure that must be something, and whether it is."""
    rows = [
        (heading(found), bar.figure, amount(bar.value, bar.unit), _bound(bar), verdict(bar))
        for found in results.results
        for bar in found.bars
    ]
    rows += flatness(results.results)
    return table(("", "figure", "measured", "bar", ""), rows)


def _bound(bar: Bar) -> str:
    return "" if bar.bound is None else f"{bar.sense} {amount(bar.bound, bar.unit)}"


def flatness(found: Sequence[Result]) -> list[tuple[str, str, str, str, str]]:
    """Return how much the memory of a conversion grows with the checkpoint, as a row."""
    peaks = {item.size_bytes or 0: item.bars[0].value for item in found if item.bench == "memory"}
    if len(peaks) < 2:
        return []
    small, large = min(peaks), max(peaks)
    figure = f"peak memory at {label(large)} against that at {label(small)}"
    growth = amount(peaks[large] / peaks[small], "ratio")
    return [("Memory of a conversion", figure, growth, "", "reported")]


def section(stem: str, found: Result) -> Iterator[str]:
    """Yield the heading, plot, table, facts and notes of a result."""
    yield f"### {heading(found)}"
    yield f"![{heading(found)}]({FOLDER}/{plot_name(stem, found)})"
    yield contenders_table(found)
    facts = ", ".join(fact_text(key, value) for key, value in found.facts.items())
    rounds = max(len(item.runs) for item in found.contenders)
    yield f"Measured on {found.date}, {rounds} rounds; {facts}."
    yield from found.notes
    if found.skipped:
        left_out = "; ".join(f"{name} ({why})" for name, why in found.skipped.items())
        yield f"Left out: {left_out}."


def fact_text(key: str, value: Fact) -> str:
    """Return a fact in words; the end of its key is its unit."""
    name, _, unit = key.rpartition("_")
    words = name.replace("_", " ")
    if not isinstance(value, str):
        if unit == "bytes":
            return f"{words or 'data'} {label(int(value))}"
        if unit in ("percent", "gib"):
            return f"{words} {value:g} {'%' if unit == 'percent' else 'GiB'}"
    return f"{key.replace('_', ' ')} {value if isinstance(value, str) else format(value, ',g')}"


def contenders_table(found: Result) -> str:
    """Return a table of the contenders: medians, and from which to which of the first quantity."""
    figures = [*found.quantities, *(item for item in BESIDE if item not in found.quantities)]
    figures = [item for item in figures if any(row.has(item) for row in found.contenders)]
    first = found.quantities[0]
    # Of a bench that times a part of it, the whole process stands beside.
    whole = {} if first == "seconds" else {"seconds": "whole process"}
    head = ["", "", *(whole.get(item, UNITS[item][0]) for item in figures)]
    head.insert(3, "from – to")
    rows = []
    for item in found.contenders:
        cells = [_median(item, figure) for figure in figures]
        values = [run[first] for run in item.runs]
        spread = f"{number(min(values), first)} – {number(max(values), first)}"
        rows.append((item.name, item.what, cells[0], spread, *cells[1:]))
    return table(head, rows)


def _median(item: Measured, figure: str) -> str:
    return number(item.median(figure), figure) if item.has(figure) else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines])


def checked(path: Path) -> Results:
    """Return the results of a file. Raises ResultError unless its schema holds."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    schema = json.loads(SCHEMA.read_text("utf-8"))
    results = load(path)
    error = best_match(
        Draft202012Validator(schema).iter_errors(json.loads(path.read_text("utf-8")))
    )
    if error is not None:
        raise ResultError(f"{path}: {error.json_path}: {error.message}")
    return results


def pages(docs: Path) -> dict[Path, str]:
    """Return the page that the results below ``docs`` make, by its path; none without results."""
    files = {path.stem: checked(path) for path in sorted((docs / FOLDER).glob("*.json"))}
    return {docs / PAGE: page(files)} if files else {}


def write_pages(docs: Path) -> list[Path]:
    """Write the page and its plots, and remove plots that no result makes; return the paths."""
    from benchmarks.plots import write_plot

    written = []
    for path, text in pages(docs).items():
        path.write_text(text, "utf-8")
        written.append(path)
    for file in sorted((docs / FOLDER).glob("*.json")):
        for found in load(file).results:
            plot = docs / FOLDER / plot_name(file.stem, found)
            write_plot(plot, found)
            written.append(plot)
    for stale in set((docs / FOLDER).glob("*.svg")) - set(written):
        stale.unlink()
    return written
