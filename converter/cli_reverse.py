"""What ``convert --reverse`` does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.cli_answer import progress_bar
from converter.errors import UsageError

if TYPE_CHECKING:
    from converter.report import Report

_KEPT = ("rules", "jobs", "overwrite", "allow_lossy")
_DEFAULTS: Mapping[str, object] = {"executor": "local"}


def refuse_lossy(options: dict[str, Any]) -> None:
    """Take ``--allow-lossy`` out of the options of another conversion; raise UsageError for it."""
    if options.pop("allow_lossy"):
        hint = "rule files say what is dropped or rounded, and why"
        raise UsageError("--allow-lossy goes with --reverse", hint=hint)


def write_back(directory: Path, out: Path, options: Mapping[str, Any], *, quiet: bool) -> Report:
    """Carry out ``convert --reverse``; raise UsageError for what its manifest says already."""
    from converter import api, report_reverse

    for name, value in options.items():
        if name not in _KEPT and value and value != _DEFAULTS.get(name):
            raise UsageError(
                f"--{name.removesuffix('s').replace('_', '-')} does not apply to --reverse",
                hint="the manifest says how the directory was made",
            )
    kept = {name: options[name] for name in _KEPT}
    made = api.reverse(directory, out, progress=partial(progress_bar, quiet=quiet), **kept)
    return report_reverse.of_reverse(made)
