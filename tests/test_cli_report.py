"""The command that writes a page: its options reach the library, its answer is by the schema."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import command_line
import pytest
from click.testing import CliRunner
from toy import convert, toy_tensors
from toy_bundle import convert_toys, write_toys

from converter import api
from converter.cli import main
from converter.digest import sha256
from converter.errors import ExecutionError, MismatchError, SourceError, UsageError

BARE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from converter.cli import main
main(sys.argv[1:], prog_name="convert")
"""

answer = partial(command_line.answer, "report")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    convert(folder, toy_tensors())
    return folder / "out"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_toys(folder)
    convert_toys(folder)
    return folder / "out"


def run_without(
    *absent: str, arguments: tuple[str | Path, ...]
) -> subprocess.CompletedProcess[str]:
    code = BARE.format(absent=absent)
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_a_page_is_written_and_told_of(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    document = answer(made, "-o", out)
    data = out.read_bytes()
    assert data.startswith(b"<!doctype html>")
    assert document["findings"] == []
    assert document["result"] == {
        "directory": str(made),
        "out": str(out),
        "size": len(data),
        "sha256": sha256(data),
        "holds": True,
        "data_bytes": 0,
        "has_values": False,
        "bundle": None,
        "manifest_sha256": sha256((made / "manifest.json").read_bytes()),
        "members": [{"name": "out", "model": "toy", "holds": True, "tensors": 14}],
    }


def test_what_is_told_is_short(made: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["report", str(made), "-o", str(tmp_path / "x.html")])
    assert result.exit_code == 0
    wrote, about, check = result.stdout.splitlines()
    assert wrote.startswith(f"  wrote  {tmp_path / 'x.html'}, ")
    assert about == f"  about  {made}: toy, 14 tensors, 164 parameters, 651 B"
    assert check == "  check  the structure holds"


def test_options_reach_the_page(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    document = answer(made, "-o", out, "--level", "full", "--values", "--jobs", "2", "--quiet")
    assert document["result"]["data_bytes"] == 651
    assert document["result"]["has_values"] is True
    page = out.read_text()
    assert "Every byte is what the manifest says: 651 B of data were read and checked" in page
    assert "Magnitudes of all values" in page
    assert "blocks.{0..1}.q.weight" in page


def test_the_same_directory_gives_the_same_bytes_wherever_it_lies(
    made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made, tmp_path / "elsewhere" / "toy")
    pages = [
        api.report(at, tmp_path / f"{number}.html", values=True, jobs=number + 1).out.read_bytes()
        for number, at in enumerate((made, tmp_path / "elsewhere" / "toy"))
    ]
    assert pages[0] == pages[1]


def test_a_bundle_has_a_section_for_each_member(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    document = answer(bundle, "-o", out, "--values")
    assert document["result"]["bundle"] == "toys"
    assert [member["name"] for member in document["result"]["members"]] == ["left", "right"]
    page = out.read_text()
    for said in ('id="left-member"', 'id="right-lineage"', "left.hidden == right.hidden"):
        assert said in page
    assert page.count("Magnitudes of all values") == 2 * 2  # as text, and for who cannot see


def test_a_directory_that_differs_has_its_page_and_exit_code(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "toy")
    (tmp_path / "toy" / "notes.txt").touch()
    out = tmp_path / "report.html"
    document = answer(tmp_path / "toy", "-o", out, "--values")
    assert document["exit_code"] == 7
    assert [finding["code"] for finding in document["findings"]] == ["extra", "values-unread"]
    assert document["result"]["has_values"] is False
    assert "a file that the manifest does not list" in out.read_text()


def test_a_member_that_differs_is_named_on_the_page(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "toys")
    (tmp_path / "toys" / "left" / "manifest.json").write_text("{}")
    out = tmp_path / "report.html"
    document = answer(tmp_path / "toys", "-o", out)
    assert document["exit_code"] == 7
    assert [member["model"] for member in document["result"]["members"]] == [None, "toy"]
    page = out.read_text()
    assert 'id="left-findings"' in page
    assert 'id="left-lineage"' not in page
    assert 'id="right-lineage"' in page


def test_without_a_manifest_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(MismatchError, match="there is no manifest"):
        api.report(tmp_path / "out", tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_directory_that_is_not_there_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such directory"):
        api.report(tmp_path / "absent", tmp_path / "report.html")


def test_a_page_is_replaced_only_when_asked(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("mine")
    with pytest.raises(ExecutionError, match="the target exists"):
        api.report(made, out)
    assert out.read_text() == "mine"
    api.report(made, out, overwrite=True)
    assert out.read_text() != "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("name", ["report.html", "sub/report.html"])
def test_a_page_is_never_written_into_the_directory(made: Path, name: str) -> None:
    with pytest.raises(UsageError, match="would lie in the directory"):
        api.report(made, made / name, overwrite=True)
    assert api.verify(made).holds


def test_another_level_is_a_usage_error(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown level"):
        api.report(made, tmp_path / "x.html", level="some")  # type: ignore[arg-type]


@pytest.mark.parametrize("absent", ["jinja2", "matplotlib", "numpy"])
def test_without_the_extra_it_says_how_to_get_it(absent: str, made: Path, tmp_path: Path) -> None:
    done = run_without(absent, arguments=("report", made, "-o", tmp_path / "x.html"))
    assert done.returncode == 6
    assert f"a report needs {absent}, which is not installed" in done.stderr
    assert "pip install 'checkpoint-converter[report]'" in done.stderr


def test_a_page_needs_no_torch(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.html"
    done = run_without("torch", "safetensors", arguments=("report", made, "-o", out, "--values"))
    assert done.returncode == 0, done.stderr
    assert out.exists()


def test_weights_that_look_fresh_are_warned_of(tmp_path: Path) -> None:
    import torch

    names = "abcde"
    rules = "dtypes: [F32]\nrules:\n" + "".join(
        f"  - {{from: {name}, to: {{{name}: [64, 64]}}}}\n" for name in names
    )
    torch.manual_seed(0)
    convert(tmp_path, {name: torch.randn(64, 64) * 0.02 for name in names}, rules)
    document = answer(tmp_path / "out", "-o", tmp_path / "x.html")
    assert [finding["code"] for finding in document["findings"]] == ["looks-initialised"]
    assert document["exit_code"] == 0
