"""The page of reported bugs is what the cases say today."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from corpus_cases import cases

SCRIPT = Path(__file__).resolve().parent.parent / "docs" / "generate_bugs.py"


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_bugs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "generate_bugs", module)
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--check"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_case_has_its_row_its_part_and_its_message() -> None:
    text = (SCRIPT.parent / "bugs.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    for case, row in zip(cases(), rows, strict=True):
        assert f"(#{case.name})" in row
        assert case.url in row
        part = text[text.index(f'<a id="{case.name}">') :].partition("\n### ")[0]
        assert case.says in part
        assert all(f"`{code}`" in row for code in case.codes)


def test_a_page_that_is_not_up_to_date_is_named_and_written_anew(
    generator: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = [case for case in cases() if case.name == "gamma-that-is-no-norm"]
    monkeypatch.setattr(generator, "cases", lambda: few)
    monkeypatch.setattr(generator, "PAGE", tmp_path / "bugs.md")
    assert generator.main(["--check"]) == 1
    assert "make docs" in capsys.readouterr().out
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    assert "decoder_block.{0..1}.gamma" in (tmp_path / "bugs.md").read_text("utf-8")
