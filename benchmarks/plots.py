"""Plots of results: medians as bars, from the least to the most of the rounds as lines on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.page import UNITS, heading, number
from benchmarks.result import Measured, Result

OURS, OTHERS, INK = "#1f6f8b", "#b9c4c9", "#333333"
# How much of a unit of a figure one unit of its axis is.
SCALES = {"s": (1.0, "s"), "bytes": (1e6, "MB"), "bytes/s": (1e9, "GB/s")}

# Text stays text, and nothing in the file hangs on the clock or on chance.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def write_plot(path: Path, found: Result) -> None:
    """Write the plot of a result as SVG, the same bytes for the same result."""
    rows = max(sum(item.has(figure) for item in found.contenders) for figure in found.quantities)
    panels = len(found.quantities)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * panels + 1.2, 0.9 + 0.3 * rows), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        for panel, quantity in zip(axes, found.quantities, strict=True):
            _draw(panel, found, quantity)
        figure.suptitle(heading(found), fontsize=10)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _draw(axes: Axes, found: Result, quantity: str) -> None:
    items = [item for item in found.contenders if item.has(quantity)][::-1]
    title, unit = UNITS[quantity]
    scale, name = SCALES[unit]
    places = range(len(items))
    medians = [item.median(quantity) / scale for item in items]
    low, high = zip(*(_ends(item, quantity, scale) for item in items), strict=True)
    below = [middle - least for middle, least in zip(medians, low, strict=True)]
    above = [most - middle for middle, most in zip(medians, high, strict=True)]
    colours = [OURS if item.name.startswith("ours") else OTHERS for item in items]
    axes.barh(
        places,
        medians,
        xerr=(below, above),
        color=colours,
        error_kw={"ecolor": INK, "elinewidth": 0.8, "capsize": 2},
    )
    for place, item, end in zip(places, items, high, strict=True):
        text = number(item.median(quantity), quantity)
        axes.annotate(text, (end, place), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(list(places), [item.name for item in items])
    axes.set_xlabel(f"{title}, {name}")
    axes.set_xlim(0, max(high) * 1.25 or 1)
    axes.spines[["top", "right"]].set_visible(False)


def _ends(item: Measured, quantity: str, scale: float) -> tuple[float, float]:
    values = [run[quantity] / scale for run in item.runs]
    return min(values), max(values)
