"""The command that imports pickles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from converter.cli_answer import progress_bar, reports, show_finding
from converter.cli_options import FILE, QUIET
from converter.errors import UsageError
from converter.finding import Finding

if TYPE_CHECKING:
    from converter.report import Report


@click.command("import", epilog="Example:  convert import s2mel.pth s2mel.safetensors --unwrap net")
@click.argument("source", type=FILE)
@click.argument("out", type=FILE)
@click.option(
    "--unwrap",
    metavar="PATH",
    help="The subtree that is meant, as net or checkpoint.model; the rest is left out.",
)
@click.option(
    "--bundle",
    metavar="NAME",
    help="All sources of a pipeline, from the folder of their published files.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file OUT, at once.")
@QUIET
@reports
def import_(
    source: Path, out: Path, unwrap: str | None, bundle: str | None, overwrite: bool, quiet: bool
) -> Report:
    """Import the tensors of SOURCE, a pickle that torch.save wrote, into OUT.safetensors.

    SOURCE is a .pt, .pth, .bin or .ckpt. Nothing in it is run: whatever asks for code is refused.
    Nested dicts become dotted names. With --bundle, SOURCE is the folder of a pipeline's
    published files, and OUT a new folder that  convert --bundle NAME OUT  takes.
    """
    from converter import api, report_import

    said: list[Finding] = []

    def notice(finding: Finding) -> None:
        said.append(finding)
        if not click.get_current_context().params["as_json"]:
            show_finding(finding)

    with progress_bar("importing", quiet=quiet) as progress:
        if bundle is not None:
            _check_bundle_options(unwrap, overwrite=overwrite)
            all_made = api.import_bundle(bundle, source, out, progress=progress, notice=notice)
            answer = report_import.of_bundle_import(all_made)
        else:
            made = api.import_checkpoint(
                source, out, unwrap=unwrap, overwrite=overwrite, progress=progress, notice=notice
            )
            answer = report_import.of_import(made)
    as_json = click.get_current_context().params["as_json"]
    return report_import.with_notices(answer, said) if as_json else answer


def _check_bundle_options(unwrap: str | None, *, overwrite: bool) -> None:
    if unwrap is not None:
        hint = "the bundle file says it for each source"
        raise UsageError("--unwrap does not apply to a bundle", hint=hint)
    if overwrite:
        hint = "name a new folder, or remove the old one yourself"
        raise UsageError("--overwrite does not apply to the import of a bundle", hint=hint)
