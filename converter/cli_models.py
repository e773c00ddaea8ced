"""The command that shows models and bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from converter.cli_answer import reports
from converter.cli_complete import models_and_bundles

if TYPE_CHECKING:
    from converter.report import Report


@click.command(
    epilog="Examples:  convert models dit;  convert models indextts2;  convert models mine.yaml"
)
@click.argument("name", required=False, shell_complete=models_and_bundles)
@reports
def models(name: str | None) -> Report:
    """List the models and bundles that come with this package, or show the one called NAME.

    NAME may be the path of a rule or bundle file too. A model is shown with its dims, variants and
    conventions, where its checkpoints come from, and whether the runtime has a network for it.
    """
    from converter import api_models, report_models
    from converter.rules.bundle_file import BundleFile

    if name is None:
        return report_models.of_models(api_models.models(), api_models.bundles())
    found = api_models.describe_model(name)
    if isinstance(found, BundleFile):
        return report_models.of_bundle_file(found)
    return report_models.of_model(found)
