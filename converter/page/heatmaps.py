"""Heatmaps of a stack: layers from left to right, kinds from top to bottom."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from converter.manifest import Statistics
from converter.page.stacks import Layer, Stack, layer_text

LEVELS = 32

_ROW = 17
_TOP, _BOTTOM = 4, 22
_LABEL_CHARS = 34
_CHAR = 6.7
_MAP_WIDTH = 216
_CELL_WIDTHS = (2.0, 18.0)
_MOST_LAYERS, _MOST_KINDS = 240, 100
_TICK_ROOM = 26
_SMALLEST = 1e-12
_LARGEST = 1e100  # beyond it, the ends of a scale would overflow


@dataclass(frozen=True, slots=True)
class Measure:
    """What is shown of a tensor's statistics, and by which colours.

    ``diverging`` measures have a sign; the colours of the others stand for magnitudes.
    """

    key: str
    title: str
    about: str
    of: Callable[[Statistics], float]
    diverging: bool = False


def _peak(stats: Statistics) -> float:
    return max(stats.max, -stats.min) / stats.std if stats.std > _SMALLEST else 0.0


MEASURES = (
    Measure("std", "Standard deviation", "how far values lie apart", lambda s: s.std),
    Measure("mean", "Mean", "where values lie", lambda s: s.mean, diverging=True),
    Measure("max", "Largest magnitude", "the value farthest from 0", lambda s: max(s.max, -s.min)),
    Measure("peak", "Outliers", "the largest magnitude in standard deviations", _peak),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One tensor's place; ``level`` is its colour, None where it has no magnitude to show."""

    x: float
    level: int | None
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """The tensors of one kind."""

    y: float
    label: str
    title: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Heatmap:
    """A heatmap, in the units of its picture."""

    measure: Measure
    about: str
    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]
    left: float
    cell_width: float
    row_height: float
    width: float
    height: float
    low: float
    high: float


def heatmaps_of(stack: Stack) -> list[Heatmap]:
    """Return one heatmap for each measure; none when no tensor of the stack has statistics."""
    kinds = dict.fromkeys(kind for (kind, _), tensor in stack.tensors.items() if tensor.stats)
    shown = stack.layers[:_MOST_LAYERS], tuple(kinds)[:_MOST_KINDS]
    return [_heatmap(stack, measure, *shown) for measure in MEASURES] if kinds else []


def left_out(stack: Stack) -> str:
    """Return what of a stack its heatmaps have no room for; nothing for most."""
    layers, kinds = len(stack.layers) - _MOST_LAYERS, len(stack.kinds) - _MOST_KINDS
    said = [f"{layers:,} more layers"] * (layers > 0) + [f"{kinds:,} more kinds"] * (kinds > 0)
    return " and ".join(said)


@functools.cache
def palette(*, diverging: bool) -> tuple[str, ...]:
    """Return the colours of the levels, from the lowest to the highest."""
    import matplotlib
    from matplotlib.colors import to_hex

    colours = matplotlib.colormaps["RdBu_r" if diverging else "viridis"]
    edge = 0.06 if diverging else 0.0
    steps = (edge + (1 - 2 * edge) * n / (LEVELS - 1) for n in range(LEVELS))
    return tuple(to_hex(colours(step)) for step in steps)


def number(value: float) -> str:
    """Return a statistic as short text."""
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def shortened(text: str, most: int) -> str:
    """Return ``text`` with its middle left out if it is longer than ``most`` characters."""
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[: most - 1 - half]}…{text[-half:]}"


def _stats(stack: Stack, kind: str, layer: Layer) -> Statistics | None:
    tensor = stack.tensors.get((kind, layer))
    return None if tensor is None else tensor.stats


def _heatmap(
    stack: Stack, measure: Measure, layers: Sequence[Layer], kinds: Sequence[str]
) -> Heatmap:
    values = {
        (kind, layer): max(-_LARGEST, min(_LARGEST, measure.of(stats)))
        for kind in kinds
        for layer in layers
        if (stats := _stats(stack, kind, layer)) is not None
    }
    low, high, found = _levels(list(values.values()), diverging=measure.diverging)
    levels = dict(zip(values, found, strict=True))
    left = 8 + _CHAR * min(_LABEL_CHARS, max(map(len, kinds)))
    least, most = _CELL_WIDTHS
    cell_width = round(min(most, max(least, _MAP_WIDTH / len(layers))), 1)
    rows = tuple(
        Row(
            y=_TOP + _ROW * number_of_row,
            label=shortened(kind, _LABEL_CHARS),
            title=kind,
            cells=tuple(_cells(kind, layers, values, levels, left, cell_width)),
        )
        for number_of_row, kind in enumerate(kinds)
    )
    return Heatmap(
        measure=measure,
        about=_about(measure, values),
        rows=rows,
        ticks=tuple(_ticks(layers, left, cell_width)),
        left=left,
        cell_width=cell_width,
        row_height=_ROW,
        width=round(left + max(cell_width * len(layers), 60) + 8, 1),
        height=_TOP + _ROW * len(kinds) + _BOTTOM,
        low=low,
        high=high,
    )


def _cells(
    kind: str,
    layers: Sequence[Layer],
    values: Mapping[tuple[str, Layer], float],
    levels: Mapping[tuple[str, Layer], int | None],
    left: float,
    width: float,
) -> list[Cell]:
    return [
        Cell(
            x=round(left + width * column, 1),
            level=levels[kind, layer],
            title=f"{layer_text(layer)}: {number(values[kind, layer])}",
        )
        for column, layer in enumerate(layers)
        if (kind, layer) in values
    ]


def _levels(values: Sequence[float], *, diverging: bool) -> tuple[float, float, list[int | None]]:
    """Return the ends of the colours, and the level of each value.

    Magnitudes have colours by their logarithm; so do signed values, but for the tenth of them
    that is nearest to 0.
    """
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize, SymLogNorm

    sizes = sorted(abs(value) for value in values if abs(value) > _SMALLEST) or [1.0]
    smallest, near_zero, largest = sizes[0], sizes[len(sizes) // 10], sizes[-1]
    if diverging:
        low, high = -largest, largest
        threshold = max(near_zero, largest * 1e-6)
        norm: Normalize = SymLogNorm(linthresh=threshold, vmin=low, vmax=high)
    else:
        low, high = smallest, largest
        norm = LogNorm(vmin=low, vmax=high if high > low else low * 1.0001)
    shown = np.array([value if diverging else max(value, low) for value in values])
    levels = np.rint(np.asarray(norm(shown)) * (LEVELS - 1)).astype(int).tolist()
    return (
        low,
        high,
        [
            level if diverging or value > _SMALLEST else None
            for value, level in zip(values, levels, strict=True)
        ],
    )


def _ticks(layers: Sequence[Layer], left: float, width: float) -> list[tuple[float, str]]:
    """Label as many layers as there is room for, the first among them."""
    room = max(_TICK_ROOM, 5.5 * max(len(layer_text(layer)) for layer in layers) + 6)
    every = max(1, -(-int(room) // max(1, int(width)))) if width < room else 1
    return [
        (round(left + width * (column + 0.5), 1), layer_text(layers[column]))
        for column in range(0, len(layers), every)
    ]


def _about(measure: Measure, values: Mapping[tuple[str, Layer], float]) -> str:
    """Say in words what the picture shows, for who cannot see it."""
    low_at, high_at = min(values, key=lambda at: values[at]), max(values, key=lambda at: values[at])
    return (
        f"{measure.title} of {len(values):,} tensors, by kind and layer: lowest "
        f"{number(values[low_at])} ({low_at[0]}, layer {layer_text(low_at[1])}), highest "
        f"{number(values[high_at])} ({high_at[0]}, layer {layer_text(high_at[1])})."
    )
