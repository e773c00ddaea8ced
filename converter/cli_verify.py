"""The command that verifies."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converter.cli_answer import progress_bar, reports
from converter.cli_options import FILE, JOBS, QUIET, TRUST
from converter.signals import checked

if TYPE_CHECKING:
    from converter.report import Report


@click.command(
    epilog="Examples:  convert verify converted/dit;  convert verify converted/ --pins pins.sha256"
)
@click.argument("directories", type=FILE, nargs=-1, required=True)
@click.option(
    "--level",
    type=click.Choice(["header", "full"]),
    default="full",
    show_default=True,
    help="Leave the data of tensors unread, or hash every byte.",
)
@click.option("--all-digests", is_flag=True, help="Also hash whole files, as sha256sum does.")
@TRUST
@click.option(
    "--source",
    type=FILE,
    metavar="IN",
    help="Derive all of it from the checkpoint IN again, and compare; writes nothing.",
)
@click.option("--rules", type=FILE, metavar="FILE", help="With --source: the rules, if your own.")
@JOBS
@QUIET
@reports
def verify(directories: tuple[Path, ...], quiet: bool, **options: Any) -> Report:
    """Check canonical DIRECTORIES, bundles, and folders of them; exit 7 when a byte differs.

    Each is held against its own manifest; a pin holds the manifest against a digest that you keep
    elsewhere (exit 8), and --source holds all against the checkpoint that it was converted from.
    """
    from converter import report_verify
    from converter.api_verify import verify_all

    bars = functools.partial(progress_bar, quiet=quiet)
    with checked():
        verdict = verify_all(directories, progress=bars, **options)
    return report_verify.of_verdict(verdict)
