"""The command that explains one tensor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converter.cli_answer import reports
from converter.cli_options import FILE, LAYOUT, RULES, chosen_rules

if TYPE_CHECKING:
    from converter.report import Report


@click.command(
    epilog="Examples:  convert explain blocks.0.attention.q_proj.weight converted/dit;  "
    "convert explain 'layers.0.**' gpt2.safetensors --model gpt2"
)
@click.argument("name")
@click.argument("path", type=FILE)
@RULES
@LAYOUT
@reports
def explain(name: str, path: Path, **options: Any) -> Report:
    """Trace the tensor NAME: from which sources, by which rule and steps, to where.

    PATH is a canonical directory, of which the manifest is read; or, with --model or --rules, a
    checkpoint, or a .json of names, dtypes and shapes, of which the header is read. NAME is one of
    the source or a canonical one; with ** at its end, all that begin so.
    """
    from converter import api, report_explain

    layout = {key: options.pop(key) for key in ("dtype", "max_shard_size")}
    made = api.explain(name, path, **layout, **chosen_rules(**options))
    return report_explain.of_explanation(made)
