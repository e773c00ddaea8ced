import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from converter.errors import ExecutionError
from converter.publish_file import StagedFile


def put(out: Path, text: str, *, overwrite: bool = False) -> None:
    with StagedFile(out, overwrite=overwrite) as staged:
        staged.path.write_text(text)
        staged.spool.write_text("on the way")
        staged.publish()


def test_a_file_appears_with_its_missing_parents(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "file"
    put(out, "new")
    assert out.read_text() == "new"
    assert [*out.parent.iterdir()] == [out]


def test_leaving_without_publishing_leaves_nothing(tmp_path: Path) -> None:
    with StagedFile(tmp_path / "a" / "file") as staged:
        staged.path.write_text("half")
        staged.spool.write_text("half")
        assert len([*staged.path.parent.iterdir()]) == 3
    assert not [*tmp_path.iterdir()]


def test_a_target_is_replaced_only_when_that_is_wanted(tmp_path: Path) -> None:
    out = tmp_path / "file"
    put(out, "old")
    with pytest.raises(ExecutionError, match="the target exists"):
        put(out, "new")
    assert out.read_text() == "old"
    put(out, "new", overwrite=True)
    assert out.read_text() == "new"
    assert [*tmp_path.iterdir()] == [out]


@pytest.mark.parametrize("kind", ["directory", "link", "dangling link"])
def test_directories_and_links_are_never_replaced(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "file"
    if kind == "directory":
        out.mkdir()
    else:
        out.symlink_to(tmp_path / "other")
        if kind == "link":
            (tmp_path / "other").write_text("precious")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ExecutionError, match="never overwritten"):
        put(out, "new", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_target_that_comes_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "file"
    with StagedFile(out) as staged:
        staged.path.write_text("new")
        out.write_text("theirs")
        with pytest.raises(ExecutionError, match="the target exists"):
            staged.publish()
    assert out.read_text() == "theirs"
    assert [*tmp_path.iterdir()] == [out]


def test_two_runs_do_not_write_one_target(tmp_path: Path) -> None:
    out = tmp_path / "file"
    with StagedFile(out) as staged:
        staged.path.write_text("first")
        with pytest.raises(ExecutionError) as caught:
            put(out, "second")
        assert caught.value.findings[0].code == "locked"
        staged.publish()
    assert out.read_text() == "first"


KILLED = """
import os, signal, sys
from pathlib import Path
from converter.publish_file import StagedFile
with StagedFile(Path(sys.argv[1])) as staged:
    staged.path.write_text("half")
    staged.spool.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the platform has no such signal")
def test_the_next_run_cleans_up_after_a_killed_one(tmp_path: Path) -> None:
    out = tmp_path / "file"
    subprocess.run([sys.executable, "-c", KILLED, out], check=False)
    assert not out.exists()
    assert {*os.listdir(tmp_path)} >= {".file.partial", ".file.spool"}
    put(out, "new")
    assert out.read_text() == "new"
    assert [*tmp_path.iterdir()] == [out]


def test_a_lack_of_space_is_found_before_the_work(tmp_path: Path) -> None:
    with StagedFile(tmp_path / "file") as staged:
        staged.require_space(1)
        with pytest.raises(ExecutionError) as caught:
            staged.require_space(1 << 60)
    assert caught.value.findings[0].code == "space"


def test_a_system_that_refuses_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ExecutionError, match="Read-only"):
        put(tmp_path / "file", "new")
    assert not [*tmp_path.iterdir()]
