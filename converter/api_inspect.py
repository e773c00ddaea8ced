"""What a checkpoint holds, as a function."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from converter import describe as describing
from converter.cores import workers
from converter.describe import Description, Order
from converter.describe_canonical import read_manifest, refuse_bundle
from converter.describe_facts import facts_of_values
from converter.needed import require_numpy
from converter.progress import Progress, unheard
from converter.source import open_source

PathLike: TypeAlias = "str | os.PathLike[str]"


def inspect(
    source: PathLike,
    *,
    prefixes: Sequence[str] = (),
    order: Order | None = None,
    stats: bool = False,
    digests: bool = False,
    jobs: int | None = None,
    progress: Progress = unheard,
) -> Description:
    """Describe a checkpoint from its header, and with ``stats`` or ``digests`` from its values.

    ``source`` is what ``convert`` takes, a header alone, or a canonical directory. ``prefixes``
    narrows it to the names that begin with one of them; ``order`` is ``size``, the largest first,
    or ``name``, and else that of the data. Values are read once, by ``jobs`` workers. Raises
    SourceError, UsageError for a prefix that no name has, ExecutionError without numpy.
    """
    if stats:
        require_numpy("a look at values")
    path = Path(source)
    refuse_bundle(path)
    with open_source(path) as opened:
        made = describing.describe(opened, prefixes=prefixes, order=order)
        if path.is_dir():
            manifest, findings = read_manifest(path, opened)
            made = replace(made, canonical=manifest, findings=findings)
        if not stats and not digests:
            return made
        from converter.describe_values import values_of

        values = values_of(opened, made, statistics=stats, jobs=workers(jobs), progress=progress)
    facts = (*made.facts, *facts_of_values(made.header, values))
    return replace(made, facts=facts, values=values)
