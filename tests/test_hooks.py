"""The pre-commit hooks: what they call exists, and runs by a Python without torch.

How pre-commit installs them needs a network; an environment with what it would install stands in.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from github_runner import REQUIREMENTS, ROOT, make_environment
from toy import convert, toy_tensors

from converter.cli import main
from converter.rules import strict_yaml

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def hooks() -> list[Any]:
    text = (ROOT / ".pre-commit-hooks.yaml").read_bytes()
    listed: Any = strict_yaml.parse(text, ".pre-commit-hooks.yaml").value
    assert isinstance(listed, list)
    return listed


def command(name: str) -> list[str]:
    """Return the arguments of the program that a hook is, with those that a user may replace."""
    (hook,) = [hook for hook in hooks() if hook["id"] == name]
    program, *arguments = shlex.split(hook["entry"])
    assert f'{program} = "converter.cli:main"' in PYPROJECT
    return [*arguments, *hook.get("args", [])]


def test_the_hooks_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    assert {hook["id"] for hook in hooks()} == {"verify-checkpoint", "lint-rules"}
    assert all(f"- id: {hook['id']}\n" in page for hook in hooks())


@pytest.mark.parametrize("hook", hooks(), ids=lambda hook: hook["id"])
def test_a_hook_is_installed_with_what_is_listed_and_nothing_else(hook: dict[str, Any]) -> None:
    assert hook["language"] == "python"
    requirements = f"--requirement={REQUIREMENTS.relative_to(ROOT)}"
    assert hook["additional_dependencies"] == ["--no-deps", requirements]
    assert command(hook["id"])[0] in main.commands


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("environment") / "venv")


def run(python: Path, workspace: Path, *arguments: str) -> int:
    done = subprocess.run(
        [python, "-P", "-m", "converter", *arguments],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    return done.returncode


def test_verify_checkpoint_passes_what_holds_and_stops_what_does_not(
    python: Path, tmp_path: Path
) -> None:
    convert(tmp_path, toy_tensors())
    (tmp_path / "converted").mkdir()
    (tmp_path / "out").rename(tmp_path / "converted" / "toy")
    assert run(python, tmp_path, *command("verify-checkpoint")) == 0
    (tmp_path / "converted" / "toy" / "SHA256SUMS").unlink()
    assert run(python, tmp_path, *command("verify-checkpoint")) == 7
    (tmp_path / "converted").rename(tmp_path / "elsewhere")
    assert run(python, tmp_path, *command("verify-checkpoint")) == 4


def test_lint_rules_passes_good_rules_and_stops_bad_ones(python: Path, tmp_path: Path) -> None:
    rules = (ROOT / "examples" / "tiny.yaml").read_text()
    (tmp_path / "good.yaml").write_text(rules)
    (tmp_path / "bad.yaml").write_text(rules.replace("hidden, hidden]", "hidden, hiden]", 1))
    assert run(python, tmp_path, *command("lint-rules"), "good.yaml") == 0
    assert run(python, tmp_path, *command("lint-rules"), "good.yaml", "bad.yaml") == 3
