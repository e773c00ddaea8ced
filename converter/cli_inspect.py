"""The command that shows what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converter.cli_answer import progress_bar, reports
from converter.cli_options import FILE, JOBS, QUIET
from converter.errors import UsageError

if TYPE_CHECKING:
    from converter.report import Report


@click.command(
    epilog="Examples:  convert inspect model.safetensors --tree;  "
    "convert inspect in/ --stats --filter encoder. --sort size"
)
@click.argument("source", type=FILE)
@click.option("--tree", is_flag=True, help="Show names as a tree, with what each level comes to.")
@click.option("--flat", "--whole", is_flag=True, help="A line for each tensor; nothing is folded.")
@click.option(
    "--filter",
    "prefixes",
    multiple=True,
    metavar="PREFIX",
    help="Only names that begin with PREFIX; may be given several times.",
)
@click.option(
    "--sort",
    "order",
    type=click.Choice(["size", "name"]),
    help="The largest first, or by name; else as the data lies.",
)
@click.option("--stats", is_flag=True, help="Read all values: mean, std, min, max, zeros, NaN.")
@click.option("--digests", is_flag=True, help="Read all bytes: the sha256 of each tensor.")
@JOBS
@QUIET
@reports
def inspect(source: Path, tree: bool, flat: bool, quiet: bool, **options: Any) -> Report:
    """Show what the checkpoint SOURCE holds: names, shapes, dtypes, sizes, what is striking.

    SOURCE is a .safetensors file, an .index.json with its shards, a directory of either, as convert
    writes them too, or a .json of names, dtypes and shapes. Only the header is read, unless
    --stats or --digests ask for values. Nothing that is pointed out is acted on.
    """
    from converter import api_inspect, report_inspect

    if tree and flat:
        raise UsageError("a tree and a flat list", expected="one of --tree and --flat")
    reads = options["stats"] or options["digests"]
    with progress_bar("reading", quiet=quiet or not reads) as progress:
        description = api_inspect.inspect(source, progress=progress, **options)
    return report_inspect.of_description(
        source,
        description,
        view="tree" if tree else "flat" if flat else "folded",
        by_size=options["order"] == "size",
        with_digests=options["digests"],
    )
