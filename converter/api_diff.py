"""The comparison of two checkpoints, as a function."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from converter import diff as comparing
from converter.cores import workers
from converter.diff_entry import Comparison, Level, Tolerance
from converter.diff_side import opened_side
from converter.errors import UsageError
from converter.needed import require_numpy
from converter.progress import Progresses, silent


def diff(
    here: str | os.PathLike[str],
    there: str | os.PathLike[str],
    *,
    level: Level = "full",
    atol: float | None = None,
    rtol: float | None = None,
    jobs: int | None = None,
    progress: Progresses = silent,
) -> Comparison:
    """Compare two checkpoints or canonical directories, by digest and by value.

    All bytes are read, and what manifests say of them is not believed. ``level="header"`` leaves
    them unread: names, dtypes and shapes are compared, and the digests that manifests state. A
    difference of at most ``atol + rtol * max(|here|, |there|)`` in every element is ``within``;
    without either, none is. Raises SourceError and MismatchError for a side that cannot be read,
    UsageError for another level or a tolerance that is none, and ExecutionError without numpy.
    """
    if level not in get_args(Level):
        raise UsageError(f"unknown level {level!r}", expected="'header' or 'full'")
    tolerance = None
    if atol is not None or rtol is not None:
        tolerance = Tolerance(atol or 0.0, rtol or 0.0)
        if level == "header":
            what = "a tolerance for values that are not read"
            raise UsageError(what, expected="the level full", got="the level header")
    if level == "full":
        require_numpy("a comparison of values")
    with opened_side(Path(here)) as one, opened_side(Path(there)) as other:
        return comparing.diff(
            one, other, level=level, tolerance=tolerance, jobs=workers(jobs), progress=progress
        )
