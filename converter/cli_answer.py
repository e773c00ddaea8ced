"""How a command answers: its report as text or JSON, errors as exit codes, progress bars."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from converter.errors import ConverterError, ExecutionError

if TYPE_CHECKING:
    from converter.report import Report

_INTERRUPTED = 130


def reports(command: Callable[..., Report]) -> Callable[..., None]:
    """Print what ``command`` reports, or its error, as text or JSON; leave with the exit code."""

    @click.option("--json", "as_json", is_flag=True, help="Answer with one line of JSON.")
    @functools.wraps(command)
    def run(as_json: bool, **arguments: Any) -> None:
        try:
            report = command(**arguments)
        except ConverterError as error:
            report = _failure(error)
        except KeyboardInterrupt:
            click.echo("interrupted; no half-written directory is left", err=True)
            sys.exit(_INTERRUPTED)
        _show(report, as_json=as_json)
        sys.exit(report.exit_code)

    return run


def _failure(error: ConverterError) -> Report:
    from converter.report import Report

    command = click.get_current_context().info_name or ""
    return Report(command, "", {}, error.findings, error.exit_code)


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        _print(report.as_json())
        return
    if report.text:
        _print(report.text)
    for finding in report.findings:
        label = f"{finding.severity}:"
        if not os.environ.get("NO_COLOR"):
            label = click.style(label, fg="yellow" if finding.severity == "warning" else "red")
        click.echo(f"{label} {finding.render()}", err=True)
    if report.exit_code and len(report.findings) > 1:
        click.echo(f"{len(report.findings)} findings", err=True)


def _print(answer: str) -> None:
    """Write to stdout; whoever reads a pipe may stop when it has seen enough."""
    try:
        click.echo(answer)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        if not isinstance(error, BrokenPipeError):
            click.echo(f"error: the answer cannot be written: {error.strerror}", err=True)
            sys.exit(ExecutionError.exit_code)


@contextmanager
def progress_bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show bytes done, rate and remaining time on a terminal; nothing anywhere else."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich import progress
    from rich.console import Console

    layout = (
        progress.TextColumn(what),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*layout, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            bars.update(bar, advance=done, total=total)

        yield advance
