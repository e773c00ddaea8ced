"""The pages in docs/models are what the rule files say today."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from converter import api

SCRIPT = Path(__file__).resolve().parent.parent / "docs" / "generate_models.py"


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_models", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "generate_models", module)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_up_to_date(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--check"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_page_for_every_model() -> None:
    pages = {path.stem for path in SCRIPT.parent.glob("models/*.md")}
    assert pages == {path.stem for path in api.rule_paths()}


def test_a_page_that_is_not_up_to_date_is_named_and_written_anew(
    generator: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(generator, "PAGES", tmp_path / "models")
    monkeypatch.setattr(generator.api, "models", lambda: [api.model("gpt-layer")])
    assert generator.main([]) == 0
    (tmp_path / "models" / "gpt-layer.md").write_text("another page")
    (tmp_path / "models" / "gone.md").touch()
    capsys.readouterr()
    assert generator.main(["--check"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["docs/models/gone.md", "docs/models/gpt-layer.md"]
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["gpt-layer.md"]
