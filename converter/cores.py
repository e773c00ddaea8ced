"""How many cores this process may use."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Return the number of cores, as far as the system tells; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
