"""The command line: commands of a few lines each."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converter import __version__, terminal
from converter.cli_answer import answered, progress_bar, reports, wants_json
from converter.cli_compare import compare
from converter.cli_completion import completion
from converter.cli_diff import diff
from converter.cli_explain import explain
from converter.cli_import import import_
from converter.cli_inspect import inspect
from converter.cli_models import models
from converter.cli_options import (
    BUNDLE,
    EXECUTOR,
    FILE,
    JOBS,
    LAYOUT,
    QUIET,
    RULES,
    chosen_bundle,
    chosen_rules,
)
from converter.cli_report import report_
from converter.cli_reverse import refuse_lossy, write_back
from converter.cli_scaffold import scaffold
from converter.cli_sign import sign
from converter.cli_trace import trace
from converter.cli_verify import verify
from converter.finding import closest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from converter.report import Report


class _DefaultGroup(click.Group):
    """A group whose first argument, when it names no command, is already convert's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "-h", "--help", "--version"}:
            near = None if args[0].startswith("-") else closest(args[0], self.commands)
            if near and not os.path.exists(args[0]) and not ctx.resilient_parsing:
                what = f"{args[0]!r} is neither a command nor a file. Did you mean {near!r}?"
                raise click.UsageError(what, ctx)
            args = ["convert", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command, or what follows where convert is meant."""
        meant = self.commands["convert"]
        inner = meant.make_context("convert", [], parent=ctx, resilient_parsing=True)
        return [
            *super().shell_complete(ctx, incomplete),
            *meant.shell_complete(inner, incomplete),
        ]

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal may lack some of the characters
                stream.reconfigure(errors="backslashreplace")
        with _fewer_collections():
            as_json = wants_json(sys.argv[1:] if args is None else args)
            if not as_json and not terminal.is_styled(sys.stderr):
                return super().main(args, *rest, **extra)
            with answered(as_json=as_json):
                sys.exit(super().main(args, *rest, **{**extra, "standalone_mode": False}))


@contextmanager
def _fewer_collections() -> Iterator[None]:
    """Let the garbage collector look less often: plans are large, and hold no garbage.

    Measured: it took a third of the time of a plan of 100,000 tensors.
    """
    before = gc.get_threshold()
    gc.set_threshold(50_000_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


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


@main.command(epilog="Example:  convert --model bert --variant legacy,pretraining,base in/ out/")
@click.argument("source", type=FILE)
@click.argument("out", type=FILE)
@RULES
@LAYOUT
@BUNDLE
@JOBS
@EXECUTOR
@click.option("--overwrite", is_flag=True, help="Replace the canonical directory OUT, at once.")
@click.option(
    "--reverse",
    is_flag=True,
    help="Write the original tensors of the canonical directory SOURCE to OUT.safetensors.",
)
@click.option(
    "--allow-lossy",
    is_flag=True,
    help="With --reverse: also where some do not come back as they were.",
)
@QUIET
@reports
def convert(
    source: Path,
    out: Path,
    bundle: str | None,
    reverse: bool,
    quiet: bool,
    **options: Any,
) -> Report:
    """Convert the checkpoint SOURCE into the canonical directory OUT, complete or not at all.

    SOURCE is a .safetensors file, an .index.json with its shards, or a directory of either; with
    --bundle it is the folder of a pipeline's sources, with --reverse a canonical directory.
    """
    from converter import api, report, report_bundle

    if reverse:
        return write_back(source, out, {"bundle": bundle, **options}, quiet=quiet)
    refuse_lossy(options)
    named = ("jobs", "executor", "ray_address", "overwrite")
    running = {key: options.pop(key) for key in named}
    with progress_bar("converting", quiet=quiet) as progress:
        if bundle is not None:
            chosen = chosen_bundle(bundle, options)
            made = api.convert_bundle(
                folder=source, out=out, progress=progress, **running, **chosen
            )
            return report_bundle.of_bundle_conversion(made)
        layout = {key: options.pop(key) for key in ("dtype", "max_shard_size")}
        conversion = api.convert(
            source, out, progress=progress, **layout, **running, **chosen_rules(**options)
        )
    return report.of_conversion(conversion)


@main.command(epilog="Example:  convert plan --model dit --table s2mel.safetensors")
@click.argument("source", type=FILE)
@RULES
@LAYOUT
@BUNDLE
@click.option("--table", is_flag=True, help="Show source → steps → target with shapes.")
@click.option("--whole", is_flag=True, help="With --table: a row per tensor, numbers not folded.")
@reports
def plan(source: Path, bundle: str | None, table: bool, whole: bool, **options: Any) -> Report:
    """Show what convert would do with SOURCE, from its header alone.

    SOURCE may also be a .json of names, dtypes and shapes.
    """
    from converter import api, report, report_bundle

    if bundle is not None:
        chosen = chosen_bundle(bundle, options)
        made_of_all = api.plan_bundle(folder=source, **chosen)
        return report_bundle.of_bundle_plan(made_of_all, table=table, whole=whole)
    layout = {key: options.pop(key) for key in ("dtype", "max_shard_size")}
    made = api.plan(source, **layout, **chosen_rules(**options))
    return report.of_plan(made, table=table, whole=whole)


@main.command(epilog="Example:  convert lint my_model.yaml")
@click.argument("files", type=FILE, nargs=-1)
@reports
def lint(files: tuple[Path, ...]) -> Report:
    """Check rule and bundle FILES by themselves; without FILES, those of this package."""
    from converter import api, report_lint

    chosen = files or (*api.rule_paths(), *api.bundle_paths())
    return report_lint.of_lint({str(path): api.linted(path) for path in chosen})


main.add_command(compare)
main.add_command(completion)
main.add_command(diff)
main.add_command(explain)
main.add_command(import_)
main.add_command(inspect)
main.add_command(models)
main.add_command(report_)
main.add_command(scaffold)
main.add_command(sign)
main.add_command(trace)
main.add_command(verify)
