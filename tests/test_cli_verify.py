"""The command line of verify: its options reach the library, and its answer is by the schema."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import command_line
import pytest
from click.testing import CliRunner
from forgery import forge
from toy import convert, toy_tensors

from converter.cli import main
from converter.digest import sha256

answer = partial(command_line.answer, "verify")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    convert(folder, toy_tensors())
    return folder


@pytest.fixture
def digest(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Go where there is ``models/toy``, its source and rules, and pins; return its digest."""
    shutil.copytree(made / "out", tmp_path / "models" / "toy")
    for name in ("toy.safetensors", "toy.yaml"):
        shutil.copy(made / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    digest = sha256(Path("models/toy/manifest.json").read_bytes())
    Path("pins").write_text(f"{digest}  models/toy/manifest.json\n")
    return digest


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--level", "header"),
        ("--all-digests",),
        ("--pins", "pins"),
        ("--source", "toy.safetensors", "--rules", "toy.yaml", "--jobs", "2", "--quiet"),
    ],
    ids=" ".join,
)
def test_what_holds_is_exit_code_0(digest: str, options: Sequence[str]) -> None:
    document = answer("models", *options)
    assert document["exit_code"] == 0
    (directory,) = document["result"]["directories"]
    assert directory["manifest_sha256"] == digest
    assert directory["trusted_by"] == (["pin"] if "--pins" in options else [])
    assert directory["derived"] is ("--source" in options)
    assert (directory["data_bytes"] == 0) is ("header" in options)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--pins", "pins"), 8),
        (("--source", "toy.safetensors", "--rules", "toy.yaml"), 7),
        (("--source", "toy.safetensors", "--rules", "toy.yaml", "--pins", "pins"), 8),
        (("--all-digests",), 0),
    ],
    ids=str,
)
def test_a_consistent_rewrite_is_caught_by_pin_or_source(
    digest: str, options: Sequence[str], code: int
) -> None:
    forge(Path("models/toy"), "embedding.weight")
    assert answer("models", *options)["exit_code"] == code
    assert answer("models/toy", "--manifest-sha256", digest)["exit_code"] == 8


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--manifest-sha256", ""), 2),
        (("--manifest-sha256", "0" * 63), 2),
        (("--pins", "absent"), 2),
        (("--rules", "toy.yaml"), 2),
        (("--source", "toy.safetensors", "--level", "header"), 2),
        (("--source", "absent.safetensors", "--rules", "toy.yaml"), 4),
        (("--source", "toy.safetensors"), 7),
    ],
    ids=str,
)
def test_what_cannot_be_checked_never_passes(
    digest: str, options: Sequence[str], code: int
) -> None:
    document = answer("models", *options)
    assert document["exit_code"] == code
    assert document["findings"]


def test_an_empty_path_of_pins_is_not_the_working_directory(digest: str) -> None:
    assert CliRunner().invoke(main, ["verify", "models", "--pins", ""]).exit_code == 2


def test_the_text_says_what_to_pin_and_what_is_wrong(digest: str) -> None:
    done = CliRunner().invoke(main, ["verify", "models", "--manifest-sha256", "0" * 64])
    assert done.exit_code == 8
    assert f"  manifest.json sha256 {digest}\n" in done.stdout
    assert "not the manifest.json that was pinned" in done.stderr
