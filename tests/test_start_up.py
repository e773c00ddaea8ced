"""What a command does not need is not imported, so that it starts at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEADER = Path(__file__).parent / "headers" / "indextts2-gpt.json"

PROGRAM = """
import sys
from converter.cli import main
try:
    main(sys.argv[1:], prog_name="convert")
finally:
    print("loaded", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def loaded(*arguments: str | Path) -> set[str]:
    """Return what is imported when a command answers in a pipe."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *names = done.stderr.split()
    assert first == "loaded"
    return set(names)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("inspect", HEADER),
        ("inspect", HEADER, "--tree"),
        ("inspect", HEADER, "--flat", "--json"),
        ("completion", "bash"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments)).replace(str(HEADER.parent), ""),
)
def test_it_imports_next_to_nothing(arguments: tuple[str | Path, ...]) -> None:
    names = loaded(*arguments)
    assert "converter" in names
    assert not names & {"rich", "torch", "numpy", "ml_dtypes", "yaml", "jsonschema", "ray"}


def test_models_are_shown_without_what_computes() -> None:
    assert not loaded("models", "dit") & {"rich", "torch", "numpy", "ml_dtypes"}
