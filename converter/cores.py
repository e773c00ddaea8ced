"""How many cores this process may use."""

from __future__ import annotations

import os

from converter.errors import UsageError


def available_cores() -> int:
    """Return the number of cores, as far as the system tells; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers(jobs: int | None) -> int:
    """Return ``jobs``, or by default one for each core. Raises UsageError for less than one."""
    if jobs is not None and jobs < 1:
        raise UsageError("the number of workers", expected="1 or more", got=str(jobs))
    return jobs or available_cores()
