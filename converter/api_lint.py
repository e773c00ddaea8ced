"""Checks of rule and bundle files by themselves, as functions; part of converter.api."""

from __future__ import annotations

from pathlib import Path

from converter.api_verify import PathLike
from converter.bundle_members import lint_bundle
from converter.errors import RuleError
from converter.finding import Finding
from converter.rules import bundle_file as bundle_files
from converter.rules import parse
from converter.rules.lint import Linted, lint_file


def lint(rules: PathLike) -> tuple[Finding, ...]:
    """Return what is wrong with a rule or bundle file by itself.

    A rule file is checked under each combination of its variants; a bundle file with its members.
    """
    return linted(rules).findings


def linted(rules: PathLike) -> Linted:
    """Return what is wrong with a rule or bundle file by itself, and what its steps lose.

    The notes on a bundle's members are those on their own rule files.
    """
    if bundle_files.is_bundle(Path(rules)):
        return Linted(lint_bundle(Path(rules)))
    try:
        return lint_file(parse.load(Path(rules)))
    except RuleError as error:
        return Linted(error.findings)
