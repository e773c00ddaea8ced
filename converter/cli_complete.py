"""What a shell may complete: models, bundles, variants, dims, dtypes.

What is needed is imported when a shell asks, since every command imports this.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

    from converter.rules.rule_file import RuleFile


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the models that begin so."""
    from converter import resources

    return _beginning(resources.rule_files(), incomplete)


def bundles(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the bundles that begin so."""
    from converter import resources

    return _beginning(resources.bundle_files(), incomplete)


def models_and_bundles(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the models and bundles that begin so."""
    from converter import resources

    return _beginning([*resources.rule_files(), *resources.bundle_files()], incomplete)


def variants(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return variants of the model that was given before, of axes that are not chosen yet."""
    rule_file = _chosen(context)
    if rule_file is None:
        return []
    before, comma, _ = incomplete.rpartition(",")
    texts = [*(context.params.get("variant") or ()), before]
    given = {name.strip() for text in texts for name in text.split(",")}
    open_axes = [names for names in rule_file.variants.values() if not given & names.keys()]
    names = [f"{before}{comma}{name}" for choices in open_axes for name in choices]
    return _beginning(names, incomplete)


def dims(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the dims of the model that was given before, as ``DIM=``."""
    rule_file = _chosen(context)
    return [] if rule_file is None else _beginning([f"{d}=" for d in rule_file.dims], incomplete)


def dtypes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the dtypes that can be cast to, in lower case or as it was begun."""
    from converter.spec import DTYPES

    floats = [name for name, dtype in DTYPES.items() if dtype.kind == "float" and dtype.bits >= 8]
    lower = not incomplete or incomplete.islower()
    return _beginning([name.lower() if lower else name for name in floats], incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _chosen(context: click.Context) -> RuleFile | None:
    """Return the rule file that the words so far choose; None while there is none to be read."""
    from converter import resources
    from converter.errors import ConverterError
    from converter.rules import parse

    model, rules = context.params.get("model"), context.params.get("rules")
    path = resources.rule_files().get(model) if model else rules and Path(rules)
    try:
        return parse.load(path) if path else None
    except ConverterError:
        return None
