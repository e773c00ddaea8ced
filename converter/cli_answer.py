"""How a command answers: its report as text or JSON, errors as exit codes, progress bars."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from converter import terminal
from converter.errors import ConverterError, ExecutionError, UsageError
from converter.progress import unheard
from converter.signals import Stopped, raised

if TYPE_CHECKING:
    from converter.finding import Finding
    from converter.report import Report


def reports(command: Callable[..., Report]) -> Callable[..., None]:
    """Print what ``command`` reports, or its error, as text or JSON; leave with the exit code.

    A signal that asks to end the process ends the command as a Ctrl-C does: all is cleaned up, and
    the exit code is 128 and the number of the signal.
    """

    @click.option("--json", "as_json", is_flag=True, help="Answer with one line of JSON.")
    @functools.wraps(command)
    def run(as_json: bool, **arguments: Any) -> None:
        try:
            with raised():
                report = command(**arguments)
        except ConverterError as error:
            report = _failure(error)
        except BaseException as error:
            _leave_if_interrupted(error)
            raise
        _show(report, as_json=as_json, plain=bool(arguments.get("quiet")))
        exit_code = report.exit_code
        del report  # else the way out, which holds this frame, would search all of it for garbage
        sys.exit(exit_code)

    return run


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether ``arguments`` ask for an answer in JSON, even if they cannot be understood."""
    return "--json" in arguments[: arguments.index("--") if "--" in arguments else None]


@contextmanager
def answered(*, as_json: bool) -> Iterator[None]:
    """Answer a usage error of click as any other error; leave with the exit code."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError as error:  # no error, but a question
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"see {context.command_path} --help" if context else None
        known = UsageError(error.format_message(), hint=hint)
        _show(_failure(known, context), as_json=as_json)
        sys.exit(known.exit_code)
    except click.Abort as error:
        _leave_if_interrupted(error)
        raise


def _failure(error: ConverterError, context: click.Context | None = None) -> Report:
    from converter.report import Report

    return Report(_command(context), "", {}, error.findings, error.exit_code)


def _command(context: click.Context | None) -> str:
    """Return the command that a context belongs to; the group without one means convert."""
    context = context or click.get_current_context(silent=True)
    while context and context.parent and context.parent.parent:
        context = context.parent
    return (context.info_name if context and context.parent else None) or "convert"


def _leave_if_interrupted(error: BaseException | None) -> None:
    # What an interrupted command still does may fail too, as on a terminal that is gone.
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    if error is None:
        return
    number, how = int(signal.SIGINT), "interrupted"
    if isinstance(error, Stopped) and error.number != number:
        number, how = error.number, f"ended by {error.name}"
    with suppress(OSError):
        click.echo(f"{how}; no half-written directory is left", err=True)
    sys.exit(128 + number)


def _show(report: Report, *, as_json: bool, plain: bool = False) -> None:
    if as_json:
        _print(report.as_json())
        return
    if report.text and (plain or not terminal.is_styled(sys.stdout)):
        _print(report.text)
    elif report.text:
        _print(terminal.drawn(report.sheet or report.text))
    for finding in report.findings:
        show_finding(finding, plain=plain)
    if report.exit_code and len(report.findings) > 1:
        _tell(f"{len(report.findings)} findings")


def show_finding(finding: Finding, *, plain: bool = False) -> None:
    """Write a finding to stderr."""
    if plain or not terminal.is_styled(sys.stderr):
        _tell(f"{finding.severity}: {finding.render()}")
    else:
        _tell(terminal.styled_finding(finding))


def _tell(text: str) -> None:
    """Write to stderr; that nobody reads it changes no exit code."""
    try:
        click.echo(text, err=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # for the flush at exit


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
    if quiet or not terminal.is_styled(sys.stderr):
        yield unheard
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
