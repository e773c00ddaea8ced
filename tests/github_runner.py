"""Runs this repository's GitHub Action as a runner would, as far as its steps are scripts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from converter.rules import strict_yaml

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements-checks.txt"

_EXPRESSION = re.compile(r"\$\{\{ ([a-z]+)\.([a-z0-9_.-]+)(?: \|\| '([^']*)')? \}\}")

Outputs = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Ran:
    """What an action did: the exit code of its last step, its log, summary and outputs."""

    exit_code: int
    log: str
    summary: str
    outputs: Mapping[str, str]


def read_action() -> dict[str, Any]:
    """Return ``action.yml``."""
    document: Any = strict_yaml.parse((ROOT / "action.yml").read_bytes(), "action.yml").value
    assert isinstance(document, dict)
    return document


def requirements() -> dict[str, str]:
    """Return what the checks require: package → version."""
    lines = REQUIREMENTS.read_text().splitlines()
    pairs = (line.partition("==")[::2] for line in lines if not line.startswith("#"))
    return dict(pairs)


def make_environment(folder: Path) -> Path:
    """Return the Python of an environment that holds the requirements, as they are here, alone.

    It stands in for what the action's install step makes, which needs a network.
    """
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    (site,) = folder.glob("lib/python*/site-packages")
    for name in requirements():
        found = distribution(name)
        for top in {Path(file).parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            (site / top).symlink_to(Path(str(found.locate_file(top))))
    return folder / "bin" / "python"


def run_action(
    folder: Path, inputs: Mapping[str, str], workspace: Path, *, python: Path | None = None
) -> Ran:
    """Run the scripts of the action in ``workspace``; those of others, such as for Python, are not.

    ``folder`` takes what a runner has beside the workspace. With ``python``, the install step is
    not run either, and that is the Python which it would have made.
    """
    action = read_action()
    known = {"inputs": {name: str(item["default"]) for name, item in action["inputs"].items()}}
    assert inputs.keys() <= known["inputs"].keys()
    known["inputs"].update(inputs)
    folder.mkdir(exist_ok=True)
    log, code = "", 0
    for step in action["runs"]["steps"]:
        outputs = folder / f"{step['id']}.outputs"
        outputs.touch()
        if step["id"] == "install" and python is not None:
            outputs.write_text(f"python={python}\n")
        elif "run" in step:
            done = _run(step, known, folder, workspace, outputs)
            log += done.stdout + done.stderr
            code = done.returncode
        pairs = (line.partition("=") for line in outputs.read_text().splitlines())
        known[f"steps.{step['id']}.outputs"] = {key: value for key, _, value in pairs}
        if code:
            break
    summary = folder / "summary.md"
    return Ran(
        code,
        log,
        summary.read_text() if summary.exists() else "",
        {name: _evaluate(item["value"], known) for name, item in action["outputs"].items()},
    )


def _run(
    step: Mapping[str, Any],
    known: Mapping[str, Mapping[str, str]],
    folder: Path,
    workspace: Path,
    outputs: Path,
) -> subprocess.CompletedProcess[str]:
    assert step["shell"] == "bash"
    assert "${{" not in step["run"], "a script takes what it is given from its environment"
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "GITHUB_ACTION_PATH": str(ROOT),
        "GITHUB_OUTPUT": str(outputs),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "RUNNER_TEMP": str(folder),
        **{name: _evaluate(value, known) for name, value in step["env"].items()},
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True)


def _evaluate(text: str, known: Mapping[str, Mapping[str, str]]) -> str:
    """Fill in expressions such as ``${{ inputs.path }}``."""

    def value(match: re.Match[str]) -> str:
        place, _, name = f"{match[1]}.{match[2]}".rpartition(".")
        return known.get(place, {}).get(name, "") or match[3] or ""

    filled = _EXPRESSION.sub(value, text)
    assert "${{" not in filled, "an expression that this runner does not know"
    return filled
