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

from converter import __version__
from converter.cli_answer import answered_as_json, progress_bar, reports, wants_json
from converter.cli_import import import_
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
from converter.cli_sign import sign
from converter.cli_verify import verify
from converter.finding import closest

if TYPE_CHECKING:
    from converter.report import Report


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

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal may lack some of the characters
                stream.reconfigure(errors="backslashreplace")
        with _fewer_collections():
            if not wants_json(sys.argv[1:] if args is None else args):
                return super().main(args, *rest, **extra)
            with answered_as_json():
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
@QUIET
@reports
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
    from converter import api, report

    chosen = files or (*api.rule_paths(), *api.bundle_paths())
    return report.of_lint({str(path): api.lint(path) for path in chosen})


@main.command(epilog="Example:  convert inspect model.safetensors")
@click.argument("source", type=FILE)
@click.option("--whole", is_flag=True, help="List every name; numbers are not folded.")
@reports
def inspect(source: Path, whole: bool) -> Report:
    """Show what the checkpoint SOURCE holds, from its header."""
    from converter import api, report

    return report.of_description(source, api.inspect(source), whole=whole)


@main.command(epilog="Examples:  convert models dit;  convert models indextts2")
@click.argument("name", required=False)
@reports
def models(name: str | None) -> Report:
    """List the models and bundles that come with this package, or show the one called NAME."""
    from converter import api, report, report_bundle

    if name is None:
        return report_bundle.of_models(api.models(), api.bundles())
    for bundle in api.bundles():
        if bundle.bundle == name:
            return report_bundle.of_bundle_file(bundle)
    return report.of_model(api.model(name))


main.add_command(import_)
main.add_command(sign)
main.add_command(verify)
