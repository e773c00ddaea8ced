"""The models and bundles that there are, as functions."""

from __future__ import annotations

import os
from pathlib import Path

from converter import resources
from converter.describe_model import Model, model_of
from converter.rules import bundle_file as bundle_files
from converter.rules import parse
from converter.rules.bundle_file import BundleFile
from converter.rules.rule_file import RuleFile


def rule_paths() -> tuple[Path, ...]:
    """Return the paths of the rule files that come with this package."""
    return tuple(resources.rule_files().values())


def models() -> list[RuleFile]:
    """Return the rule files that come with this package."""
    return [parse.load(path) for path in rule_paths()]


def model(name: str) -> RuleFile:
    """Return the rule file of one model. Raises UsageError for a name that is not known."""
    return parse.load(resources.rule_file(name))


def bundle_paths() -> tuple[Path, ...]:
    """Return the paths of the bundle files that come with this package."""
    return tuple(resources.bundle_files().values())


def bundles() -> list[BundleFile]:
    """Return the bundle files that come with this package."""
    return [bundle_files.load(path) for path in bundle_paths()]


def describe_model(name: str) -> Model | BundleFile:
    """Return all that is known of a model or bundle, by its name or the path of its ``.yaml``.

    Raises UsageError for a name that is not known, and RuleError for a file that is none.
    """
    own = _is_path(name)
    path = Path(name) if own else resources.model_or_bundle(name)
    if bundle_files.is_bundle(path):
        return bundle_files.load(path)
    return model_of(parse.load(path), () if own else bundles())


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or os.path.basename(name) != name
