"""What the wheel and the sdist carry, and that the wheel works on its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from tiny import RULES, make_checkpoint

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = "converter/page/templates"


def build(target: str, folder: Path) -> Path:
    """Build the ``wheel`` or the ``sdist`` of this checkout, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def checkout(folder: str, pattern: str) -> set[str]:
    """Return the paths below ``folder`` of this checkout, written with slashes."""
    return {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob(pattern)}


def test_the_wheel_carries_rules_schemas_and_the_mark_of_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {f"converter/_data/rules/{name}" for name in checkout("rules", "*.yaml")}
    expected |= {f"converter/_data/schemas/{name}" for name in checkout("schemas", "*.json")}
    assert {name for name in names if name.startswith("converter/_data/")} == expected
    assert "converter/py.typed" in names
    modules = {f"converter/{name}" for name in checkout("converter", "*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


def test_the_wheel_carries_the_templates_of_pages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    templates = {f"{TEMPLATES}/{name}" for name in checkout(TEMPLATES, "*")}
    assert f"{TEMPLATES}/page.html.j2" in templates
    assert templates <= names


def test_the_wheel_holds_nothing_beside_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"converter"}


def test_the_wheel_names_both_console_scripts_and_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (scripts,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        text = archive.read(scripts).decode()
        metadata = archive.read(scripts.replace("entry_points.txt", "METADATA")).decode()
    assert "convert = converter.cli:main" in text
    assert "checkpoint-convert = converter.cli:main" in text
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata


def test_the_sdist_carries_what_make_needs(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder, pattern in (("rules", "*.yaml"), ("schemas", "*.json"), ("examples", "*.py")):
        assert {f"{folder}/{name}" for name in checkout(folder, pattern)} <= names
    assert {"Makefile", "constraints.txt", "pyproject.toml", "LICENSE", "README.md"} <= names
    assert "tests/golden/all-minilm-l6-v2/golden.safetensors" in names
    assert not {name for name in names if name.endswith(".pyc")}


def run_installed(installed: Path, cwd: Path, *arguments: str | Path) -> str:
    """Run the unpacked wheel, and nothing of the checkout, in ``cwd``."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "converter", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_lists_its_own_models(installed: Path, tmp_path: Path) -> None:
    code = "from converter import api; print(*api.rule_paths(), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert {path.stem for path in paths} == {path.stem for path in (ROOT / "rules").glob("*.yaml")}
    assert all(path.is_relative_to(installed) for path in paths)
    listed = run_installed(installed, tmp_path, "models")
    assert all(path.stem in listed for path in paths)


def test_the_wheel_converts_verifies_and_reports_from_another_directory(
    installed: Path, tmp_path: Path
) -> None:
    make_checkpoint(tmp_path / "tiny.safetensors")
    run_installed(installed, tmp_path, "--rules", RULES, "tiny.safetensors", "out")
    assert "holds" in run_installed(installed, tmp_path, "verify", "out")
    assert "wrote" in run_installed(installed, tmp_path, "report", "out", "-o", "out.html")


def test_the_working_directory_is_not_searched_for_rules(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "stranger.yaml").write_text("not a rule file")
    assert "stranger" not in run_installed(installed, tmp_path, "models")
