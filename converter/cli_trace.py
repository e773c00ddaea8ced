"""The command that records a network's run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from converter.cli_answer import reports
from converter.cli_options import FILE

if TYPE_CHECKING:
    from converter.report import Report


@click.command(
    epilog="Example:  convert trace converted/bert --inputs inputs.safetensors -o ours.safetensors"
)
@click.argument("directory", type=FILE)
@click.option(
    "--inputs",
    type=FILE,
    required=True,
    metavar="FILE",
    help="The inputs, in safetensors, by the names of the network's arguments.",
)
@click.option("-o", "--out", type=FILE, required=True, metavar="FILE", help="The trace to write.")
@click.option("--device", metavar="DEVICE", default="cpu", help="cpu, cuda or cuda:N.")
@click.option(
    "--input-prefix",
    metavar="PREFIX",
    help="What stands before the arguments' names; else input. where there are such names.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="PATH",
    help="Record the module of this dotted path and all below it; * is any one part.",
)
@click.option("--full-check", is_flag=True, help="Prove every byte of the weights first.")
@click.option("--overwrite", is_flag=True, help="Replace the file OUT, at once.")
@reports
def trace(
    directory: Path,
    inputs: Path,
    out: Path,
    device: str,
    input_prefix: str | None,
    only: tuple[str, ...],
    full_check: bool,
    overwrite: bool,
) -> Report:
    """Run the network of the canonical DIRECTORY, and record what every module takes and gives.

    The trace is a safetensors file: layers.0.attention.output is what that module returned,
    output.NAME what the network did. See compare for what to do with it.
    """
    from converter import api, report_trace

    traced = api.trace(
        directory,
        inputs,
        out,
        device=device,
        input_prefix=input_prefix,
        only=only,
        full_check=full_check,
        overwrite=overwrite,
    )
    return report_trace.of_trace(traced)
