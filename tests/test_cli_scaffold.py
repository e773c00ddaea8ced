"""The command line of scaffold: its options reach the library, and its answer is by the schema."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import command_line
import pytest
from click.testing import CliRunner
from test_without_torch import run_bare

from converter import resources
from converter.cli import main

GOLDEN = Path(__file__).parent / "golden"
SOURCE = {f"h.{i}.w": {"dtype": "F32", "shape": [16, 16]} for i in range(3)}
TARGET = {f"layers.{i}.weight": {"dtype": "F32", "shape": [16, 16]} for i in range(3)}

run = partial(command_line.run, "scaffold")
answer = partial(command_line.answer, "scaffold")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("source.json").write_text(json.dumps(SOURCE))
    Path("target.json").write_text(json.dumps(TARGET))
    return tmp_path


@pytest.mark.parametrize(
    ("out", "named"), [("-x.yaml", "./-x.yaml"), ("my rules.yaml", "'my rules.yaml'")]
)
def test_the_next_command_can_be_pasted_into_a_shell(out: str, named: str) -> None:
    result = run("source.json", "--model", "mine", "--out", out)
    assert result.exit_code == 0
    assert result.stdout.endswith(f"convert lint {named}\n")


def test_links_in_a_circle_are_an_error_and_no_defect() -> None:
    Path("circle.safetensors").symlink_to("circle.safetensors")
    assert answer("circle.safetensors")["exit_code"] == 4
    for out in ("circle.safetensors", "circle.safetensors/rules.yaml"):
        document = answer("source.json", "--model", "mine", "-o", out)
        assert document["exit_code"] == 6
        assert "circle.safetensors" in document["findings"][0]["where"]


def test_without_a_file_the_rules_are_printed() -> None:
    result = run("source.json", "--model", "mine")
    assert result.exit_code == 0
    assert "\nmodel: mine\n" in result.stdout
    assert result.stdout.endswith('  - from: h.{i}.w\n    to:\n      "?": [d16, d16]\n')
    assert sorted(path.name for path in Path().iterdir()) == ["source.json", "target.json"]


def test_the_answer_has_the_rules_and_what_is_open() -> None:
    document = answer("source.json", "-o", "mine.yaml", "--target", "target.json")
    result = document["result"]
    text = Path("mine.yaml").read_text()
    assert (result["model"], result["out"], result["text"]) == ("mine", "mine.yaml", text)
    assert (result["tensors"], result["rules"], result["undecided"]) == (3, 1, 2)
    assert result["dims"] == {"h_count": 3, "d16": 16}
    assert "the target has only layers.{0..2}.weight" in text


def test_a_file_that_was_written_is_told_with_what_to_do_next() -> None:
    result = run("source.json", "-o", "rules/mine.yaml")
    assert result.stdout.splitlines() == [
        "rules/mine.yaml: 3 tensors in 1 rule, 2 dims",
        '  undecided  2, each written as "?"',
        "  next       convert lint rules/mine.yaml",
    ]
    lint = CliRunner().invoke(main, ["lint", "rules/mine.yaml"])
    assert lint.exit_code == 3
    assert "mine.yaml:8: it is not decided what title is" in lint.stderr
    assert "it is not decided what h.{i}.w becomes" in lint.stderr
    assert "2 findings" in lint.stderr


def test_the_schema_is_where_editors_find_it() -> None:
    run("source.json", "-o", "mine.yaml")
    first = Path("mine.yaml").read_text().splitlines()[0]
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert Path(schema).resolve() == resources.schema_file("rules")


def test_a_file_that_is_there_is_replaced_only_when_asked() -> None:
    Path("mine.yaml").write_text("mine")
    refused = answer("source.json", "-o", "mine.yaml")
    assert (refused["exit_code"], refused["findings"][0]["code"]) == (6, "exists")
    assert Path("mine.yaml").read_text() == "mine"
    assert answer("source.json", "-o", "mine.yaml", "--overwrite")["exit_code"] == 0
    assert Path("mine.yaml").read_text() != "mine"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("absent.json",), 4),
        (("source.json", "--target", "absent.json"), 4),
        (("source.json", "--model", "No Name"), 2),
        (("source.json", "--scope", "net."), 4),
    ],
    ids=str,
)
def test_what_cannot_be_begun_has_its_exit_code(arguments: tuple[str, ...], code: int) -> None:
    assert answer(*arguments)["exit_code"] == code


def test_the_name_of_the_model_is_that_of_the_file() -> None:
    assert answer("source.json")["result"]["model"] == "source"
    assert answer("source.json", "-o", "My_Model.yaml")["result"]["model"] == "my-model"


def test_it_needs_neither_torch_nor_numpy() -> None:
    done = run_bare("scaffold", "source.json", "--target", "target.json", "-o", "mine.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("mine.yaml").exists()


def test_a_real_checkpoint_is_a_source_and_a_target() -> None:
    saved, hub = (GOLDEN / name / "checkpoint.safetensors" for name in ("gpt2", "gpt2-hub-layout"))
    result = run(str(saved), "--target", str(hub))
    assert result.exit_code == 0
    assert "the target has only wte.weight" in result.stdout
