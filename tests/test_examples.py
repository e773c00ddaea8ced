from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SAID = {
    "01_convert.py": "model.safetensors",
    "02_verify.py": "One bit changed: holds is False",
    "03_load_into_module.py": "Another network is refused, with 4 differences",
    "04_pipeline.py": "From features to a waveform: shapes meet, every value is finite",
    "05_convert_and_load.py": "Loaded GPT2: logits [1, 4, 50], all of them finite",
    "06_trace_a_port.py": "the first to part is 0 (Block): all before agrees, but not what its own",
}
LONGEST = {"04_pipeline.py": 150, "05_convert_and_load.py": 60, "06_trace_a_port.py": 60}


def test_every_numbered_example_is_known_here() -> None:
    assert sorted(SAID) == sorted(path.name for path in EXAMPLES.glob("[0-9]*.py"))


@pytest.mark.parametrize("name", SAID)
def test_the_example_runs_from_anywhere_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert SAID[name] in done.stdout
    assert not done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", SAID)
def test_the_example_is_short_enough_to_read_at_once(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) <= LONGEST.get(name, 40)
