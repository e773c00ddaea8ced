"""Python's garbage collector, and when it had better not run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Make many objects, none of them garbage, without collections in between.

    Each would look at them all, and one of everything takes as long as torch is large: three
    times what a load of two thousand mapped tensors takes without.
    """
    runs = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if runs:
            gc.enable()
