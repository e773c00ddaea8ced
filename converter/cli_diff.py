"""The command that compares two checkpoints."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converter.cli_answer import progress_bar, reports
from converter.cli_options import FILE, JOBS, QUIET
from converter.signals import checked

if TYPE_CHECKING:
    from converter.report import Report


@click.command(
    epilog="Examples:  convert diff old.safetensors new.safetensors;  "
    "convert diff converted/a converted/b --rtol 1e-3"
)
@click.argument("here", type=FILE)
@click.argument("there", type=FILE)
@click.option(
    "--level",
    type=click.Choice(["header", "full"]),
    default="full",
    show_default=True,
    help="Leave values unread and believe the digests in manifests, or read every byte.",
)
@click.option("--atol", type=float, metavar="X", help="Differences of at most X are tiny.")
@click.option("--rtol", type=float, metavar="X", help="So are those of X times the larger value.")
@click.option("--whole", is_flag=True, help="List every tensor; numbers are not folded.")
@JOBS
@QUIET
@reports
def diff(here: Path, there: Path, whole: bool, quiet: bool, **options: Any) -> Report:
    """Compare two checkpoints or canonical directories by digest and value; exit 7 if they differ.

    HERE and THERE are .safetensors files, indices of shards, or directories of either. Told apart
    are tensors that are equal, renamed, reshaped, transposed, of permuted rows, cast, changed (and
    how far), and on one side only. Names and tensors are compared, metadata is not.
    """
    from converter import api, report_diff

    bars = functools.partial(progress_bar, quiet=quiet)
    with checked():
        comparison = api.diff(here, there, progress=bars, **options)
    return report_diff.of_comparison(comparison, whole=whole)
