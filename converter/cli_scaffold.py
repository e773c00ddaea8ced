"""The command that begins a rule file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from converter.cli_answer import reports
from converter.cli_options import FILE

if TYPE_CHECKING:
    from converter.report import Report


@click.command(
    epilog="Example:  convert scaffold model.safetensors --target network.json -o rules/mine.yaml"
)
@click.argument("source", type=FILE)
@click.option(
    "--target",
    type=FILE,
    metavar="HEADER",
    help="What the tensors shall become: a saved state_dict(), or its header as .json.",
)
@click.option("--model", metavar="NAME", help="The model's name; else that of the rule file.")
@click.option("--scope", default="", metavar="PREFIX", help="Only names that begin with PREFIX.")
@click.option("-o", "--out", type=FILE, metavar="FILE", help="Write to FILE; else to stdout.")
@click.option("--overwrite", is_flag=True, help="Replace FILE, at once.")
@reports
def scaffold(
    source: Path,
    target: Path | None,
    model: str | None,
    scope: str,
    out: Path | None,
    overwrite: bool,
) -> Report:
    """Begin a rule file from the header of the checkpoint SOURCE.

    Names are folded into patterns, sizes that repeat into dims. What each tensor becomes is left
    open as "?", which lint refuses until you have decided; what names and shapes suggest stands in
    comments. SOURCE may also be a .json of names, dtypes and shapes.
    """
    from converter import api, report_scaffold

    made = api.scaffold(source, out, target=target, model=model, scope=scope, overwrite=overwrite)
    return report_scaffold.of_scaffold(made, out)
