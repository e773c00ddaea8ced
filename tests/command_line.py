"""Commands, run in this process, and what they answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
from click.testing import CliRunner, Result

from converter import resources
from converter.cli import main


def run(*arguments: str | Path, charset: str = "utf-8") -> Result:
    """Run a command; a defect of the program is raised."""
    result = CliRunner(charset=charset).invoke(main, [str(item) for item in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def answer(*arguments: str | Path) -> dict[str, Any]:
    """What a command answers with --json: by its schema, on stdout, and nothing else anywhere."""
    result = run(*arguments, "--json")
    assert result.stderr == ""
    assert result.stdout.isascii()
    assert result.stdout.count("\n") == 1
    document = json.loads(result.stdout, parse_constant=_refuse)
    jsonschema.validate(document, resources.schema("report"))
    assert document["exit_code"] == result.exit_code
    assert document["ok"] == (result.exit_code == 0)
    assert isinstance(document, dict)
    return document


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")
