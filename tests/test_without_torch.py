"""Commands that need no tensors work where torch and numpy are not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import RULES, make_checkpoint

from converter import api
from converter.digest import sha256

HEADER = Path(__file__).parent / "headers" / "s2mel.json"

BARE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "numpy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from converter.cli import main
main(sys.argv[1:], prog_name="convert")
"""


def run_bare(*arguments: str | Path, code: str = BARE) -> subprocess.CompletedProcess[str]:
    """Run the command line in an interpreter that finds neither torch nor numpy."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("source") / "tiny.safetensors")


@pytest.fixture(scope="module")
def converted(checkpoint: Path) -> Path:
    return api.convert(checkpoint, checkpoint.parent / "out", rules=RULES).out


def test_the_interpreter_of_these_tests_has_no_torch() -> None:
    code = BARE.replace("from converter.cli import main\nmain", "import torch\nprint")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "No module named 'torch'" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("convert", "--help"),
        ("import", "--help"),
        ("models",),
        ("models", "dit"),
        ("lint",),
        ("lint", RULES),
        ("inspect", HEADER),
        ("inspect", HEADER, "--tree"),
        ("completion", "zsh"),
        ("models", RULES),
        ("plan", "--model", "dit", "--source-prefix", "net.", "--table", HEADER),
    ],
    ids=lambda arguments: " ".join(getattr(argument, "name", argument) for argument in arguments),
)
def test_it_needs_no_torch(arguments: tuple[str | Path, ...]) -> None:
    done = run_bare(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_real_file_is_inspected_and_planned(checkpoint: Path) -> None:
    assert run_bare("inspect", checkpoint).returncode == 0
    assert run_bare("inspect", "--digests", checkpoint).returncode == 0
    assert run_bare("explain", "--rules", RULES, "**", checkpoint).returncode == 0
    assert run_bare("scaffold", checkpoint).stdout
    planned = run_bare("plan", "--rules", RULES, "--json", checkpoint)
    assert json.loads(planned.stdout)["result"]["totals"]["tensors"] == 10


def test_a_directory_is_explained_and_its_headers_are_compared(converted: Path) -> None:
    done = run_bare("explain", "**", converted)
    assert done.returncode == 0, done.stderr
    assert run_bare("diff", "--level", "header", converted, converted).returncode == 0


@pytest.mark.parametrize("level", ["header", "full"])
def test_a_directory_is_verified(level: str, converted: Path) -> None:
    done = run_bare("verify", "--level", level, converted)
    assert done.returncode == 0, done.stderr


def test_a_folder_is_verified_with_its_pins(converted: Path, tmp_path: Path) -> None:
    manifest = converted / "manifest.json"
    (tmp_path / "pins").write_text(f"{sha256(manifest.read_bytes())}  {manifest}\n")
    done = run_bare("verify", "--pins", tmp_path / "pins", converted.parent)
    assert done.returncode == 0, done.stderr
    assert "trusted by pin" in done.stdout


def test_what_needs_numpy_says_so(converted: Path, checkpoint: Path) -> None:
    done = run_bare("verify", "--source", checkpoint, "--rules", RULES, converted)
    assert done.returncode == 6
    assert "deriving again needs numpy, which is not installed" in done.stderr


def test_statistics_need_numpy_but_no_torch(checkpoint: Path) -> None:
    done = run_bare("inspect", "--stats", checkpoint)
    assert done.returncode == 6
    assert "a look at values needs numpy, which is not installed" in done.stderr
    bare = BARE.replace('("torch", "numpy")', '("torch",)')
    assert run_bare("inspect", "--stats", checkpoint, code=bare).returncode == 0


def test_deriving_again_needs_numpy_but_no_torch(converted: Path, checkpoint: Path) -> None:
    command = ("verify", "--source", checkpoint, "--rules", RULES, converted)
    bare = BARE.replace('("torch", "numpy")', '("torch",)')
    done = subprocess.run([sys.executable, "-c", bare, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "derived again from its source: holds" in done.stdout


def test_a_changed_byte_is_found(converted: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in converted.iterdir():
        data = file.read_bytes()
        changed = data[:-1] + bytes([data[-1] ^ 1]) if file.suffix == ".safetensors" else data
        (copy / file.name).write_bytes(changed)
    assert run_bare("verify", copy).returncode == 7


def test_a_conversion_needs_numpy_alone(checkpoint: Path, converted: Path, tmp_path: Path) -> None:
    without_torch = BARE.replace('("torch", "numpy")', '("torch", "safetensors")')
    arguments = ("convert", checkpoint, tmp_path / "out", "--rules", RULES)
    done = run_bare(*arguments, code=without_torch)
    assert done.returncode == 0, done.stderr
    for file in converted.iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_a_conversion_without_numpy_says_what_it_needs(checkpoint: Path, tmp_path: Path) -> None:
    done = run_bare("convert", checkpoint, tmp_path / "out", "--rules", RULES)
    assert done.returncode == 6
    assert "needs numpy" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_way_back_needs_numpy_alone(converted: Path, tmp_path: Path) -> None:
    out = tmp_path / "back.safetensors"
    command = ("convert", "--reverse", converted, out, "--rules", RULES, "--allow-lossy")
    done = run_bare(*command)
    assert done.returncode == 6
    assert "the way back needs numpy, which is not installed" in done.stderr
    assert not out.exists()
    done = run_bare(*command, code=BARE.replace('("torch", "numpy")', '("torch",)'))
    assert done.returncode == 0, done.stderr
    assert out.is_file()


def test_an_import_without_torch_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"PK")
    done = run_bare("import", tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert done.returncode == 6
    assert "an import needs torch, which is not installed" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
