"""The command line: commands of a few lines each, and one place where errors become exit codes."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from converter import __version__
from converter.errors import ConverterError, ExecutionError, SourceError, UsageError
from converter.finding import Finding, closest

if TYPE_CHECKING:
    from converter.api import Rules
    from converter.report import Report

F = TypeVar("F", bound=Callable[..., Any])

_INTERRUPTED = 130


class _FilePath(click.Path):
    """A path; an empty one, such as of a variable that is not set, is not the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("a path is empty", param, ctx)
        return super().convert(value, param, ctx)


_FILE = _FilePath(path_type=Path)


class _DefaultGroup(click.Group):
    """A group whose first argument, when it names no command, is already convert's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "-h", "--help", "--version"}:
            near = None if args[0].startswith("-") else closest(args[0], self.commands)
            if near and not os.path.exists(args[0]):
                what = f"{args[0]!r} is neither a command nor a file. Did you mean {near!r}?"
                raise click.UsageError(what, ctx)
            args = ["convert", *args]
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **extra: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal may lack some of the characters
                stream.reconfigure(errors="backslashreplace")
        return super().main(*args, **extra)


@click.group(
    cls=_DefaultGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The main job:  convert --model dit in.safetensors out/",
)
@click.version_option(__version__, prog_name="checkpoint-converter")
def main() -> None:
    """Rewrite original checkpoints, once and offline, into canonical safetensors that are proven.

    Without a command, convert is meant. Exit codes: 0 done, 1 a defect of this program, 2 usage,
    3 rule file, 4 source, 5 rules and source do not fit, 6 not carried out, 7 not equal, 8 not
    trusted.
    """


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    return lambda command: functools.reduce(lambda done, add: add(done), reversed(options), command)


_RULES = _options(
    click.option("--model", metavar="NAME", help="A model that comes with this package."),
    click.option("--rules", type=_FILE, metavar="FILE", help="A rule file, in place of --model."),
    click.option(
        "--variant",
        multiple=True,
        metavar="A,B",
        help="Variants of the model, at most one of each axis; models NAME lists them.",
    ),
    click.option(
        "--set", "sets", multiple=True, metavar="DIM=N", help="Set a dim; a list as 4,2,2."
    ),
    click.option("--dims", type=_FILE, metavar="FILE", help="Set dims from a YAML file."),
    click.option("--scope", metavar="PREFIX", help="The model's prefix in this source; may be ''."),
    click.option("--source-prefix", metavar="PREFIX", help="A prefix that every name carries."),
)
_LAYOUT = _options(
    click.option("--dtype", metavar="DTYPE", help="Cast every floating tensor, such as to bf16."),
    click.option("--max-shard-size", metavar="SIZE", help="Most data in a file, as 5GB."),
)
_BUNDLE = click.option(
    "--bundle",
    metavar="NAME",
    help="All models of a pipeline, from a folder; --set MEMBER.DIM=N, --source-prefix SOURCE=P.",
)
_JOBS = click.option("--jobs", type=click.IntRange(1), metavar="N", help="Workers; else all cores.")
_QUIET = click.option("--quiet", is_flag=True, help="Show no progress bar.")


def _rules(
    model: str | None,
    rules: Path | None,
    variant: tuple[str, ...],
    sets: tuple[str, ...],
    dims: Path | None,
    scope: str | None,
    source_prefix: str | None,
) -> Rules:
    """Gather the options of ``_RULES``."""
    from converter.dims import read_dims

    return {
        "model": model,
        "rules": rules,
        "variant": [name.strip() for text in variant for name in text.split(",")],
        "dims": read_dims(dims, sets),
        "scope": scope,
        "source_prefix": source_prefix or "",
    }


def _bundle(bundle: str, options: dict[str, Any]) -> dict[str, Any]:
    """Gather what ``_RULES`` and ``_LAYOUT`` mean for a bundle; the rest does not apply to one."""
    from converter.dims import by_member, read_dims, read_prefixes

    dims = by_member(read_dims(options.pop("dims"), options.pop("sets")))
    prefixes = read_prefixes(options.pop("source_prefix") or "")
    if given := [name for name, value in options.items() if value not in (None, ())]:
        option = f"--{given[0].replace('_', '-')}"
        of_member = given[0] not in ("dtype", "max_shard_size")
        raise UsageError(
            f"{option} does not apply to a bundle",
            hint="a bundle file states it for each member; give one of your own"
            if of_member
            else "convert the members one by one",
        )
    return {"bundle": bundle, "dims": dims, "source_prefixes": prefixes}


def _reports(command: Callable[..., Report]) -> Callable[..., None]:
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
def _progress(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
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


@main.command(epilog="Example:  convert --model bert --variant legacy,pretraining,base in/ out/")
@click.argument("source", type=_FILE)
@click.argument("out", type=_FILE)
@_RULES
@_LAYOUT
@_BUNDLE
@_JOBS
@click.option("--overwrite", is_flag=True, help="Replace the canonical directory OUT, at once.")
@_QUIET
@_reports
def convert(
    source: Path,
    out: Path,
    bundle: str | None,
    quiet: bool,
    **options: Any,
) -> Report:
    """Convert the checkpoint SOURCE into the canonical directory OUT, complete or not at all.

    SOURCE is a .safetensors file, an .index.json with its shards, or a directory of either; with
    --bundle it is the folder of a pipeline's sources.
    """
    from converter import api, report, report_bundle

    running = {key: options.pop(key) for key in ("jobs", "overwrite")}
    with _progress("converting", quiet=quiet) as progress:
        if bundle is not None:
            chosen = _bundle(bundle, options)
            made = api.convert_bundle(
                folder=source, out=out, progress=progress, **running, **chosen
            )
            return report_bundle.of_bundle_conversion(made)
        layout = {key: options.pop(key) for key in ("dtype", "max_shard_size")}
        conversion = api.convert(
            source, out, progress=progress, **layout, **running, **_rules(**options)
        )
    return report.of_conversion(conversion)


@main.command(epilog="Example:  convert plan --model dit --table s2mel.safetensors")
@click.argument("source", type=_FILE)
@_RULES
@_LAYOUT
@_BUNDLE
@click.option("--table", is_flag=True, help="Show source → steps → target with shapes.")
@click.option("--whole", is_flag=True, help="With --table: a row per tensor, numbers not folded.")
@_reports
def plan(source: Path, bundle: str | None, table: bool, whole: bool, **options: Any) -> Report:
    """Show what convert would do with SOURCE, from its header alone.

    SOURCE may also be a .json of names, dtypes and shapes.
    """
    from converter import api, report, report_bundle

    if bundle is not None:
        chosen = _bundle(bundle, options)
        made_of_all = api.plan_bundle(folder=source, **chosen)
        return report_bundle.of_bundle_plan(made_of_all, table=table, whole=whole)
    layout = {key: options.pop(key) for key in ("dtype", "max_shard_size")}
    made = api.plan(source, **layout, **_rules(**options))
    return report.of_plan(made, table=table, whole=whole)


@main.command(epilog="Example:  convert verify converted/dit")
@click.argument("directories", type=_FILE, nargs=-1, required=True)
@click.option(
    "--level",
    type=click.Choice(["header", "full"]),
    default="full",
    show_default=True,
    help="Leave the data of tensors unread, or hash every byte.",
)
@_JOBS
@_QUIET
@_reports
def verify(directories: tuple[Path, ...], level: Any, jobs: int | None, quiet: bool) -> Report:
    """Check canonical DIRECTORIES against their manifests; exit 7 when a byte differs."""
    from converter import api, report

    checked = []
    failed: list[Finding] = []
    for directory in directories:
        try:
            with _progress("verifying", quiet=quiet) as progress:
                checked.append(api.verify(directory, level=level, jobs=jobs, progress=progress))
        except SourceError as error:
            failed += error.findings
    answer = report.of_verification(checked)
    code = answer.exit_code or (SourceError.exit_code if failed else 0)
    return replace(answer, findings=(*answer.findings, *failed), exit_code=code)


@main.command(epilog="Example:  convert lint my_model.yaml")
@click.argument("files", type=_FILE, nargs=-1)
@_reports
def lint(files: tuple[Path, ...]) -> Report:
    """Check rule and bundle FILES by themselves; without FILES, those of this package."""
    from converter import api, report

    chosen = files or (*api.rule_paths(), *api.bundle_paths())
    return report.of_lint({str(path): api.lint(path) for path in chosen})


@main.command(epilog="Example:  convert inspect model.safetensors")
@click.argument("source", type=_FILE)
@click.option("--whole", is_flag=True, help="List every name; numbers are not folded.")
@_reports
def inspect(source: Path, whole: bool) -> Report:
    """Show what the checkpoint SOURCE holds, from its header."""
    from converter import api, report

    return report.of_description(source, api.inspect(source), whole=whole)


@main.command(epilog="Examples:  convert models dit;  convert models indextts2")
@click.argument("name", required=False)
@_reports
def models(name: str | None) -> Report:
    """List the models and bundles that come with this package, or show the one called NAME."""
    from converter import api, report, report_bundle

    if name is None:
        return report_bundle.of_models(api.models(), api.bundles())
    for bundle in api.bundles():
        if bundle.bundle == name:
            return report_bundle.of_bundle_file(bundle)
    return report.of_model(api.model(name))
