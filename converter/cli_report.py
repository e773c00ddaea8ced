"""The command that writes a page about a canonical directory."""

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


@click.command("report", epilog="Example:  convert report converted/dit -o report.html --values")
@click.argument("directory", type=FILE)
@click.option("-o", "--out", type=FILE, required=True, metavar="FILE", help="The page to write.")
@click.option(
    "--level",
    type=click.Choice(["header", "full"]),
    default="header",
    show_default=True,
    help="Leave the data of tensors unread, or hash every byte, as verify does.",
)
@click.option("--values", is_flag=True, help="Read all weights, and show how their values lie.")
@click.option("--overwrite", is_flag=True, help="Replace the file that is there.")
@JOBS
@QUIET
@reports
def report_(directory: Path, out: Path, quiet: bool, **options: Any) -> Report:
    """Write one HTML page about the canonical DIRECTORY, or bundle; exit 7 if it does not hold.

    The page shows provenance, the lineage of every tensor, statistics of the weights, what was left
    out and why, and all findings. It needs no other file and no network, and holds no script.
    """
    from converter import api, report_html

    bars = functools.partial(progress_bar, quiet=quiet)
    with checked():
        page = api.report(directory, out, progress=bars, **options)
    return report_html.of_page(page)
