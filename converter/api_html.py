"""The page about a canonical directory, as a function."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from converter.api_verify import PathLike, verify
from converter.cores import workers
from converter.needed import require_page
from converter.progress import Progresses, silent
from converter.verify import Depth, Level, Verification

if TYPE_CHECKING:
    from converter.page.page_file import PageFile
    from converter.page.value_counts import ValueCounts


def report(
    directory: PathLike,
    out: PathLike,
    *,
    level: Level = "header",
    values: bool = False,
    overwrite: bool = False,
    jobs: int | None = None,
    progress: Progresses = silent,
) -> PageFile:
    """Write a page about a canonical directory, or a bundle of them: one HTML file, complete.

    ``level`` says how much of it is checked, as in ``verify``; differences are on the page and in
    the result. ``values`` also reads all weights, once, and shows how their values lie; memory
    stays constant. ``overwrite`` replaces the file ``out``. Raises ExecutionError where the extra
    ``report`` is missing, or the page cannot be written; SourceError when there is no such
    directory, MismatchError when it has no manifest that can be read, UsageError for another level
    and for a page in the directory itself.
    """
    require_page("a report")
    from converter.page.page_file import write_page

    Depth(level)

    def check(path: Path) -> Verification:
        with progress("verifying") as told:
            return verify(path, level=level, jobs=jobs, progress=told)

    return write_page(
        Path(directory),
        Path(out),
        overwrite=overwrite,
        check=check,
        count=functools.partial(_count, workers(jobs), progress) if values else None,
    )


def _count(jobs: int, progress: Progresses, verification: Verification) -> dict[str, ValueCounts]:
    from converter.page.facts import groups_for_values
    from converter.page.value_counts import count_values

    counts = {}
    for check in verification.members or (verification,):
        if check.manifest is None:
            continue
        name = check.directory.name if verification.members else ""
        with progress(f"reading values {name}".rstrip()) as told:
            counts[name] = count_values(
                check.directory,
                check.manifest,
                groups_for_values(check.manifest),
                jobs=jobs,
                progress=told,
            )
    return counts
