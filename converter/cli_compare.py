"""The command that compares traces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from converter.cli_answer import progress_bar, reports
from converter.cli_options import FILE, QUIET

if TYPE_CHECKING:
    from converter.report import Report


@click.command(
    epilog="Example:  convert compare ours.safetensors port.safetensors --map names.yaml"
)
@click.argument("trace", type=FILE)
@click.argument("other", type=FILE)
@click.option(
    "--map",
    "names",
    type=FILE,
    metavar="FILE",
    help="YAML or JSON of OTHER's names and the trace's; {i} is a whole number.",
)
@click.option("--atol", type=float, metavar="X", help="Allowed difference; else by the dtype.")
@click.option(
    "--rtol", type=float, metavar="X", help="Allowed difference by the value; else by the dtype."
)
@click.option("--complete", is_flag=True, help="A tensor that OTHER lacks is a difference too.")
@click.option("--all", "whole", is_flag=True, help="List every tensor.")
@QUIET
@reports
def compare(
    trace: Path,
    other: Path,
    names: Path | None,
    atol: float | None,
    rtol: float | None,
    complete: bool,
    whole: bool,
    quiet: bool,
) -> Report:
    """Find the first module where OTHER parts from TRACE; exit 7 when they part.

    TRACE is of  convert trace;  OTHER is one too, or any safetensors file that has some of its
    names, as a port of the network writes it.
    """
    from converter import api, report_compare

    with progress_bar("comparing", quiet=quiet) as progress:
        comparison = api.compare(
            trace,
            other,
            names=names,
            atol=atol,
            rtol=rtol,
            complete=complete,
            progress=progress,
        )
    return report_compare.of_comparison(comparison, whole=whole)
