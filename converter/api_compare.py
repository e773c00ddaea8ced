"""The comparison of traces, as a function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from converter.api_verify import PathLike
from converter.needed import require_numpy
from converter.progress import Progress, unheard

if TYPE_CHECKING:
    from converter.compare import Comparison


def compare(
    trace: PathLike,
    other: PathLike,
    *,
    names: PathLike | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    complete: bool = False,
    progress: Progress = unheard,
) -> Comparison:
    """Compare a trace with another file of tensors, and find the first module where they part.

    ``other`` may be a trace, or any safetensors file that has some of its names; ``names`` is a
    YAML or JSON file of their names and those of the trace. An element agrees if
    ``|trace - other| <= atol + rtol * |trace|``; without them, what fits the dtypes is taken.
    ``complete`` makes a tensor that ``other`` lacks a difference. Raises UsageError, SourceError,
    MismatchError when there is no name in common, and ExecutionError without numpy.
    """
    require_numpy("a comparison")
    from converter.compare import compare as carry_out
    from converter.compare_values import Tolerance

    return carry_out(
        Path(trace),
        Path(other),
        names=None if names is None else Path(names),
        tolerance=Tolerance(atol, rtol),
        complete=complete,
        progress=progress,
    )
