"""The GitHub Action, run against good and tampered directories by a Python without torch.

Run are its scripts as they stand in ``action.yml``, but for the install step, which needs a
network: an environment that holds what it would install, and nothing else, stands in.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path

import jsonschema
import pytest
from forgery import forge
from github_runner import ROOT, Ran, make_environment, read_action, requirements, run_action
from packaging.requirements import Requirement
from toy import convert, toy_tensors
from toy_bundle import convert_toys, write_toys

from converter import resources
from converter.digest import sha256


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    convert(folder, toy_tensors())
    write_toys(folder / "toys")
    convert_toys(folder / "toys")
    (folder / "converted").mkdir()
    (folder / "out").rename(folder / "converted" / "toy")
    (folder / "toys" / "out").rename(folder / "converted" / "both")
    return folder / "converted"


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Path:
    """A checkout of a user's, with ``converted/`` and pins of what is in it."""
    workspace = tmp_path / "workspace"
    shutil.copytree(made, workspace / "converted")
    paths = ("converted/both/bundle.json", "converted/toy/manifest.json")
    lines = [f"{sha256((workspace / path).read_bytes())}  {path}\n" for path in paths]
    (workspace / "pins.sha256").write_text("".join(lines))
    return workspace


@pytest.fixture
def run(workspace: Path, tmp_path: Path, python: Path) -> Callable[..., Ran]:
    def run(**inputs: str) -> Ran:
        named = {name.replace("_", "-"): value for name, value in inputs.items()}
        return run_action(tmp_path / "runner", named, workspace, python=python)

    return run


def findings(ran: Ran) -> list[str]:
    """Return the codes in the report, which is as every report."""
    document = json.loads(Path(ran.outputs["report"]).read_text())
    jsonschema.validate(document, resources.schema("report"))
    assert document["exit_code"] == ran.exit_code
    assert ran.outputs["exit-code"] == str(ran.exit_code)
    assert ran.outputs["ok"] == str(ran.exit_code == 0).lower()
    return [finding["code"] for finding in document["findings"]]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# What is verified


@pytest.mark.parametrize("module", ["torch", "numpy", "safetensors", "pytest"])
def test_its_environment_has_no_torch_and_nothing_else_of_ours(python: Path, module: str) -> None:
    done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, text=True)
    assert "ModuleNotFoundError" in done.stderr


def test_what_holds_passes(run: Callable[..., Ran]) -> None:
    ran = run()
    assert (ran.exit_code, findings(ran)) == (0, [])
    assert "### Checkpoints: all holds" in ran.summary
    assert ran.summary.count("✅") == 4
    assert "converted/toy: toy, 14 tensors" in ran.log
    assert "::error" not in ran.log


def test_a_changed_byte_fails_and_is_named_everywhere(
    run: Callable[..., Ran], workspace: Path
) -> None:
    flip(workspace / "converted" / "toy" / "model.safetensors", -1)
    ran = run()
    assert (ran.exit_code, findings(ran)) == (7, ["digest"])
    assert "::error title=digest::converted/toy/model.safetensors: the data is not" in ran.log
    assert "### Checkpoints: exit code 7" in ran.summary
    assert ran.summary.count("❌") == 1
    assert "- **digest** converted/toy/model&#46;safetensors" in ran.summary


def test_data_that_is_not_to_be_read_is_not_judged(
    run: Callable[..., Ran], workspace: Path
) -> None:
    flip(workspace / "converted" / "toy" / "model.safetensors", -1)
    assert run(level="header").exit_code == 0
    assert findings(run(level="header", all_digests="true")) == ["usage"]
    assert findings(run(all_digests="true")) == ["digest"]


def test_pins_are_held(run: Callable[..., Ran], workspace: Path) -> None:
    ran = run(pins="pins.sha256")
    assert (ran.exit_code, findings(ran)) == (0, [])
    assert ran.summary.count("| pin |") == 2
    forge(workspace / "converted" / "toy", "embedding.weight")
    assert run().exit_code == 0
    ran = run(pins="pins.sha256")
    assert (ran.exit_code, findings(ran)) == (8, ["pin"])


def test_one_digest_is_held(run: Callable[..., Ran], workspace: Path) -> None:
    digest = sha256((workspace / "converted" / "toy" / "manifest.json").read_bytes())
    assert run(path="converted/toy", manifest_sha256=digest).exit_code == 0
    ran = run(path="converted/both", manifest_sha256=digest)
    assert (ran.exit_code, findings(ran)) == (8, ["pin"])


def test_several_paths_are_on_lines_of_their_own(run: Callable[..., Ran]) -> None:
    ran = run(path="\n  converted/toy\nconverted/both\n")
    assert ran.exit_code == 0
    assert ran.summary.count("✅") == 4


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"path": "absent"}, 4),
        ({"path": "pins.sha256"}, 4),
        ({"path": "\n"}, 2),
        ({"level": "half"}, 2),
        ({"all_digests": "yes"}, 2),
        ({"manifest_sha256": ""}, 2),
        ({"manifest_sha256": " "}, 2),
        ({"manifest_sha256": "0" * 64}, 2),
        ({"pins": ""}, 2),
        ({"pins": "absent"}, 2),
        ({"public_key": ""}, 2),
        ({"public_key": "key.pub"}, 6),  # the package for signatures is not installed here
    ],
    ids=str,
)
def test_nothing_passes_that_was_not_verified(
    run: Callable[..., Ran], inputs: dict[str, str], code: int
) -> None:
    """An empty digest is that of a variable which is not set, and no leave to do without."""
    ran = run(**inputs)
    assert ran.exit_code == code
    assert findings(ran)
    assert "::error title=" in ran.log
    assert f"### Checkpoints: exit code {code}" in ran.summary


# What comes from strangers


def test_names_neither_command_the_log_nor_mark_up_the_summary(
    run: Callable[..., Ran], workspace: Path
) -> None:
    name = "::error::<b>[x](y) `|` @you %0A\n::add-mask::x"
    (workspace / "converted" / "toy").rename(workspace / "converted" / name)
    (workspace / "converted" / name / "\n::warning::x").touch()
    ran = run()
    assert (ran.exit_code, findings(ran)) == (7, ["extra"])
    lines = ran.log.splitlines()
    (start,) = [n for n, line in enumerate(lines) if line.startswith("::stop-commands::")]
    (end,) = [n for n, line in enumerate(lines) if line == f"::{lines[start].split('::')[2]}::"]
    commands = [line for line in (*lines[:start], *lines[end + 1 :]) if line.startswith("::")]
    assert len(commands) == 1
    assert commands[0].startswith("::error title=extra::converted/")
    assert "%250A" in commands[0]
    for character in "<[`@":
        assert character not in ran.summary


def test_a_package_of_the_same_name_in_the_checkout_is_not_run(
    run: Callable[..., Ran], workspace: Path
) -> None:
    for name in ("converter", "yaml", "click"):
        (workspace / name).mkdir()
        (workspace / name / "__init__.py").write_text("raise SystemExit(0)")
    flip(workspace / "converted" / "toy" / "model.safetensors", -1)
    assert run().exit_code == 7


# What it is made of


def test_every_script_takes_what_it_is_given_from_its_environment() -> None:
    for step in read_action()["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


def test_the_actions_of_others_are_pinned_to_a_commit() -> None:
    used = [step["uses"] for step in read_action()["runs"]["steps"] if "uses" in step]
    assert [len(name.partition("@")[2]) for name in used] == [40]


def test_the_requirements_are_those_of_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert requirements()
    assert {f"{name}=={number}" for name, number in requirements().items()} <= set(lines)


def test_the_requirements_are_whole() -> None:
    """Whatever one of them requires, on any Python, is among them: pip is told to add nothing."""
    listed = {name.lower().replace("_", "-") for name in requirements()}
    for name in listed:
        for text in requires(name) or ():
            needed = Requirement(text)
            pythons = ({"extra": "", "python_version": v} for v in ("3.11", "3.12", "3.13"))
            if needed.marker is None or any(map(needed.marker.evaluate, pythons)):
                assert needed.name.lower().replace("_", "-") in listed, text
