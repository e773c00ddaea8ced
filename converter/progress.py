"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

# Called with the bytes done since the last call, and the bytes there are in all.
Progress: TypeAlias = Callable[[int, int], None]
