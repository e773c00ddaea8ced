"""Histograms, drawn by matplotlib as SVG that takes its colours from the page.

Nothing from a manifest is drawn as text, since matplotlib would read ``$`` as mathematics.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from converter.manifest import TensorRecord
from converter.page.heatmaps import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that stand for those of the page, which differ by day and by night.
_INK, _SOFT, _FIRST, _SECOND, _MARK = "#010101", "#020202", "#030303", "#040404", "#050505"
_OF_THE_PAGE = {
    _INK: "var(--muted)",
    _SOFT: "var(--line)",
    _FIRST: "var(--series-1)",
    _SECOND: "var(--series-2)",
    _MARK: "var(--warn)",
}
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "checkpoint-converter",
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "DejaVu Sans", "sans-serif"],
    "font.size": 9.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_SIZE_INCHES = (4.3, 2.2)
_BINS = 32
_SMALLEST = 1e-12
_PARTS = ("matrices", "vectors and scalars")
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(?<=#)[^")\s]+(?=["\)])')
_BETWEEN = re.compile(r"> <(?!/text)")
_OPENING = re.compile(r"<svg [^>]*?viewBox=\"([^\"]*)\"[^>]*>")


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure: SVG, its title, and in words what it shows."""

    title: str
    about: str
    svg: str


def of_tensors(tensors: Sequence[TensorRecord], prefix: str) -> list[Plot]:
    """Return how the statistics of tensors are spread, over matrices and over vectors.

    ``prefix`` keeps the ids of the figures of a page apart.
    """
    known = [t for t in tensors if t.stats is not None and t.spec.numel > 1]
    stats = [t.stats for t in known if t.stats is not None]
    is_matrix = [len(t.shape) >= 2 for t in known]
    if not known:
        return []
    stds = [s.std for s in stats]
    largest = [max(s.max, -s.min) for s in stats]
    relative = [s.mean / s.std if s.std > _SMALLEST else math.nan for s in stats]
    sizes = [float(t.spec.numel) for t in known]
    return [
        _spread("Standard deviation", "std", stds, is_matrix, f"{prefix}std"),
        _spread(
            "Mean, in standard deviations",
            "mean / std",
            relative,
            is_matrix,
            f"{prefix}mean",
            signed=True,
        ),
        _spread("Largest magnitude", "max |value|", largest, is_matrix, f"{prefix}max"),
        _spread("Values in a tensor", "values", sizes, is_matrix, f"{prefix}size"),
    ]


def _spread(
    title: str,
    label: str,
    values: Sequence[float],
    is_matrix: Sequence[bool],
    prefix: str,
    *,
    signed: bool = False,
) -> Plot:
    """Draw over how many tensors a statistic is spread; signed ones have linear bins."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    kept = [
        (min(3.0, max(-3.0, v)) if signed else math.log10(v), matrix)
        for v, matrix in zip(values, is_matrix, strict=True)
        if (math.isfinite(v) if signed else v > _SMALLEST)
    ]
    parts = [[v for v, matrix in kept if matrix == kind] for kind in (True, False)]
    with _axes(prefix) as (axes, save):
        low, high = _ends([v for v, _ in kept], signed=signed)
        below = np.zeros(_BINS)
        for part, colour, label_of_part in zip(parts, (_FIRST, _SECOND), _PARTS, strict=True):
            counts, edges = np.histogram(part, bins=_BINS, range=(low, high))
            top = below + counts
            axes.stairs(top, edges, baseline=below, fill=True, color=colour, label=label_of_part)
            below = top
        axes.set_xlabel(f"{label}, those beyond ±3 at the ends" if signed else label)
        axes.set_ylabel("tensors")
        axes.set_xlim(low, high)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if not signed:
            _powers_of_ten(axes, low, high)
        axes.legend(fontsize=8)
        svg = save()
    middle = median([v for v, _ in kept]) if kept else 0.0
    usual = number(middle if signed else 10**middle)
    left_out = len(values) - len(kept)
    but = f"; {left_out:,} more have none" if left_out else ""
    return Plot(title, f"{title} of {len(kept):,} tensors; the median is {usual}{but}.", svg)


def steps_figure(
    title: str,
    about: str,
    counts: Sequence[float],
    edges: Sequence[float],
    *,
    prefix: str,
    label: str,
    marks: Sequence[tuple[float, str]] = (),
    curve: Sequence[float] = (),
    logarithmic: bool = False,
) -> Plot:
    """Draw counts between edges, with a dashed ``curve`` to compare with and named ``marks``."""
    with _axes(prefix) as (axes, save):
        axes.stairs(counts, edges, fill=True, color=_FIRST, alpha=0.75)
        if curve:
            centres = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
            axes.plot(centres, curve, color=_MARK, linestyle="--", linewidth=1.2)
        for at, text in marks:
            axes.axvline(at, color=_MARK, linewidth=1, linestyle=":")
            axes.annotate(
                text,
                (at, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, -2),
                textcoords="offset points",
                fontsize=7.5,
                color=_MARK,
                va="top",
            )
        if logarithmic and any(counts):
            axes.set_yscale("log")
        axes.margins(y=0.2 if marks else 0.05)
        axes.set_xlabel(label)
        axes.set_ylabel("share of values")
        axes.set_xlim(edges[0], edges[-1])
        svg = save()
    return Plot(title, about, svg)


def _ends(values: Sequence[float], *, signed: bool) -> tuple[float, float]:
    if signed:
        return -3.0, 3.0
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low - 0.5, high + 0.5) if high - low < 0.5 else (low, high)


def _powers_of_ten(axes: Axes, low: float, high: float) -> None:
    """Label the axis of logarithms by the values that they stand for."""
    whole = range(math.ceil(low), math.floor(high) + 1)
    ticks = [float(n) for n in whole] if len(whole) >= 2 else [low, (low + high) / 2, high]
    every = -(-len(ticks) // 8)
    axes.set_xticks(ticks[::every], [number(10**tick) for tick in ticks[::every]])


@contextmanager
def _axes(prefix: str) -> Iterator[tuple[Axes, _Save]]:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for key, value in _SETTINGS.items():
            matplotlib.rcParams[key] = value  # type: ignore[index]
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure.add_subplot(), _Save(figure.savefig, prefix)


@dataclass(frozen=True, slots=True)
class _Save:
    savefig: Callable[..., None]
    prefix: str

    def __call__(self) -> str:
        into = io.StringIO()
        self.savefig(into, format="svg", metadata={"Date": None, "Creator": None})
        return _for_the_page(into.getvalue(), self.prefix)


def _for_the_page(svg: str, prefix: str) -> str:
    """Leave the drawing alone of an SVG file, with ids of its own and the colours of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.S
    )
    used = set(_ID.findall(svg)) & set(_REFERENCE.findall(svg))
    svg = _ID.sub(lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", svg)
    svg = _REFERENCE.sub(lambda m: f"{prefix}-{m[0]}" if m[0] in used else m[0], svg)
    for stand_in, colour in _OF_THE_PAGE.items():
        svg = svg.replace(stand_in, colour)
    svg = _BETWEEN.sub("><", re.sub(r"\s*\n\s*", " ", svg)).strip()
    return _OPENING.sub(r'<svg viewBox="\1" class="plot" aria-hidden="true">', svg, count=1)
