"""Targets of conversions that something happens to, and what may lie there afterwards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blocks import write_bundles, write_models
from bundles import contents
from forked import Forks

from converter import api

Content = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """A place to convert to, and the two contents that conversions give it."""

    out: Path
    arguments: Mapping[str, tuple[str, ...]]
    wholes: Mapping[str, Content]

    def state(self) -> str:
        """Return which whole lies there, or ``absent``; anything else is an error."""
        if not os.path.lexists(self.out):
            return "absent"
        found = contents(self.out)
        (state,) = [name for name, whole in self.wholes.items() if whole == found] or ["half"]
        assert state != "half", sorted(found)
        assert api.verify(self.out, jobs=1).holds
        return state

    def beside(self) -> set[str]:
        """Return what else lies in the directory of the target."""
        return {path.name for path in self.out.parent.iterdir() if path != self.out}


def make_target(kind: str, folder: Path, conversions: Forks) -> Target:
    """Return a target for checkpoints ``a`` and ``b``, of one ``model`` or of a ``bundle``.

    It is in ``folder / "to"``, and its content is ``b`` to begin with.
    """
    sources, options = (write_models if kind == "model" else write_bundles)(folder)
    (folder / "to").mkdir(exist_ok=True)
    out = folder / "to" / "out"
    seen = conversions.seen(out)
    arguments = {name: (str(source), str(out), *options) for name, source in sources.items()}
    wholes = {}
    for name, words in arguments.items():
        done = conversions.run(*words, "--overwrite")
        assert done.status == 0, done.stderr
        wholes[name] = contents(seen)
    assert wholes["a"].keys() == wholes["b"].keys()
    assert wholes["a"] != wholes["b"]
    return Target(seen, arguments, wholes)
