import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pickle_files import ARCHIVES, CODE, CONTENTS, GREEDY, MARKER, PLAIN, Case, stream
from pickles import import_it, saved
from pickles import in_this_process as in_this_process

from converter.cli import main
from converter.errors import SourceError

HERE = {**ARCHIVES, **CONTENTS}


def refusal(case: Case, folder: Path) -> str:
    """Import a file, which is refused in one finding; return what that says."""
    path = folder / "crafted.pth"
    path.write_bytes(case.make())
    with pytest.raises(SourceError) as caught:
        import_it(path)
    assert [*folder.iterdir()] == [path]
    (finding,) = caught.value.findings
    assert finding.code == case.code, finding
    assert finding.where == str(path)
    assert "\n" not in finding.what
    assert len(str(caught.value)) < 1500
    assert str(caught.value).isprintable() or all(
        map(str.isprintable, str(caught.value).split("\n"))
    )
    assert case.names in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("case", HERE.values(), ids=HERE)
def test_a_file_that_is_no_plain_checkpoint_is_refused(case: Case, tmp_path: Path) -> None:
    refusal(case, tmp_path)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("case", CODE.values(), ids=CODE)
def test_code_is_named_and_not_run(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refusal(case, tmp_path)
    assert not Path(MARKER).exists()


@pytest.mark.parametrize("case", GREEDY.values(), ids=GREEDY)
def test_a_file_that_takes_without_bound_is_stopped(case: Case, tmp_path: Path) -> None:
    refusal(case, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "os.system, before torch 1.6",
        "numpy's array",
        "a zip bomb",
        "duplicated members",
        "a stride-0 bomb",
        "an out-of-range sparse tensor",
    ],
)
def test_the_command_exits_with_4_and_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pth").write_bytes({**CODE, **HERE}[name].make())
    done = CliRunner().invoke(main, ["import", "a.pth", "out/a.safetensors", "--json"])
    report: Any = json.loads(done.stdout.splitlines()[-1])
    assert done.exit_code == report["exit_code"] == 4
    assert os.listdir() == ["a.pth"]


@pytest.mark.usefixtures("in_this_process")
def test_the_files_that_these_are_made_of_are_taken(tmp_path: Path) -> None:
    for number, data in enumerate([saved(PLAIN), saved(PLAIN, is_archive=False), stream()]):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(data)
        assert len(import_it(path).selection.pieces) == len(PLAIN)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("is_archive", [True, False])
def test_a_truncated_file_is_refused_wherever_it_ends(is_archive: bool, tmp_path: Path) -> None:
    whole = saved(PLAIN, is_archive=is_archive)
    path = tmp_path / "a.pth"
    for end in range(0, len(whole), 1 if is_archive else 3):
        path.write_bytes(whole[:end])
        with pytest.raises(SourceError):
            import_it(path)
