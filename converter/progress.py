"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

# Called with the bytes done since the last call, and the bytes there are in all.
Progress: TypeAlias = Callable[[int, int], None]

# Called with what is being done; within it, the one that it gives is told how far that is.
Progresses: TypeAlias = Callable[[str], AbstractContextManager[Progress]]


def unheard(done: int, total: int) -> None:
    """Tell nobody how far it is."""


@contextmanager
def silent(what: str) -> Iterator[Progress]:
    """Tell nobody what is done, nor how far it is."""
    yield unheard
