import ctypes
import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from publish_scenario import NEW, OLD, Interruption, content, convert, read

from converter import publish
from converter.errors import ExecutionError
from converter.finding import Finding
from converter.publish import Staging, exchange
from converter.write import write_file

SCENARIO = Path(__file__).with_name("publish_scenario.py")
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def umask() -> Iterator[None]:
    old = os.umask(0)
    yield
    os.umask(old)


def refusal(out: Path, *, overwrite: bool = False, size_bytes: int = 0) -> Finding:
    """Why nothing can be published at ``out``, which must be found before any work is done."""
    beside = set(out.parent.iterdir())
    with pytest.raises(ExecutionError) as caught:
        Staging(out, overwrite=overwrite, size_bytes=size_bytes).__enter__()
    assert set(out.parent.iterdir()) == beside
    (finding,) = caught.value.findings
    return finding


def convert_halfway(out: Path, error: BaseException, *, overwrite: bool = False) -> None:
    with Staging(out, overwrite=overwrite) as staging:
        write_file(staging.path / "manifest.json", b"{}")
        raise error


def assert_published(out: Path, mark: bytes) -> None:
    assert read(out) == content(mark)
    assert os.listdir(out.parent) == [out.name]


# What is published, and how it looks


def test_a_directory_appears_complete_and_nothing_beside_it(out: Path) -> None:
    convert(out, NEW)
    assert_published(out, NEW)


def test_nothing_appears_before_it_is_published(out: Path) -> None:
    with Staging(out) as staging:
        write_file(staging.path / "manifest.json", b"{}")
        assert not out.exists()
        assert staging.path.parent == out.parent
        assert staging.path.stat().st_mode & 0o777 == 0o700
        staging.publish()
        assert read(out) == {"manifest.json": b"{}"}


@posix
@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(out: Path, mask: int) -> None:
    os.umask(mask)
    convert(out, NEW)
    assert out.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}


def test_an_empty_directory_is_taken_over(out: Path) -> None:
    out.mkdir()
    convert(out, NEW)
    assert_published(out, NEW)


def test_overwriting_replaces_the_old_directory_whole(out: Path) -> None:
    convert(out, OLD)
    (out / "model-00001-of-00002.safetensors").touch()
    (out / "model.sig").touch()
    convert(out, NEW, overwrite=True)
    assert_published(out, NEW)


def test_overwriting_nothing_is_a_first_publish(out: Path) -> None:
    convert(out, NEW, overwrite=True)
    assert_published(out, NEW)


def test_missing_parents_are_made(tmp_path: Path) -> None:
    convert(tmp_path / "a" / "b" / "out", NEW)
    assert_published(tmp_path / "a" / "b" / "out", NEW)


def test_missing_parents_are_removed_again_on_failure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="halfway"):
        convert_halfway(tmp_path / "a" / "b" / "out", ValueError("halfway"))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["with spaces", "モデル", "-rf", ".hidden", "a.partial"])
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    convert(tmp_path / name, NEW)
    assert_published(tmp_path / name, NEW)


def test_a_relative_target_is_resolved(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "inside").mkdir(parents=True)
    monkeypatch.chdir(out / "inside")
    convert(Path("../new"), NEW)
    assert read(out / "new") == content(NEW)
    convert(Path(), NEW)
    assert read(out / "inside") == content(NEW)
    with pytest.raises(ExecutionError, match="cannot be written"):
        convert(Path("gone"), NEW)  # its parent was the directory that has been replaced


# What is refused before any work is done


def test_a_target_that_is_not_empty_stays_without_overwrite(out: Path) -> None:
    convert(out, OLD)
    finding = refusal(out)
    assert finding.code == "exists"
    assert finding.where == str(out)
    assert "--overwrite" in str(finding.hint)
    assert_published(out, OLD)


def test_a_target_behind_links_in_a_circle_is_refused(out: Path) -> None:
    out.symlink_to(out.name)
    assert "file or a link" in refusal(out, overwrite=True).what
    with pytest.raises(ExecutionError) as caught:
        Staging(out / "below").__enter__()
    assert caught.value.findings[0].where == str(out)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_or_a_link_stays_even_with_overwrite(out: Path, overwrite: bool) -> None:
    out.write_text("precious")
    assert "file or a link" in refusal(out, overwrite=overwrite).what
    assert out.read_text() == "precious"
    empty = out.with_name("empty")
    empty.mkdir()
    for target in (empty, out.with_name("nowhere")):
        out.unlink()
        out.symlink_to(target)
        assert "file or a link" in refusal(out, overwrite=overwrite).what
        assert out.is_symlink()


@pytest.mark.parametrize(
    ("names", "got"),
    [
        (["thesis.txt"], "thesis.txt"),
        (["model.safetensors"], "no manifest.json"),
        (["manifest.json", "index.html", "photos/"], "index.html, photos"),
        (["manifest.json", "model.safetensors/"], "model.safetensors"),
    ],
)
def test_a_directory_that_no_conversion_made_stays_even_with_overwrite(
    out: Path, names: list[str], got: str
) -> None:
    out.mkdir()
    for name in names:
        if name.endswith("/"):
            (out / name).mkdir()
        else:
            (out / name).touch()
    finding = refusal(out, overwrite=True)
    assert "not a canonical directory" in finding.what
    assert finding.got == got
    assert sorted(path.name for path in out.iterdir()) == sorted(n.rstrip("/") for n in names)


def test_a_mount_point_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == out)
    assert "mount point" in refusal(out).what


@posix
def test_the_root_of_a_file_system_is_refused() -> None:
    with pytest.raises(ExecutionError, match="root of a file system"):
        Staging(Path("/"))


def test_too_little_space_is_found_with_both_figures(out: Path) -> None:
    finding = refusal(out, size_bytes=1 << 60)
    assert finding.code == "space"
    assert finding.expected == "1,152,921,504,606,846,976 bytes"
    assert str(finding.got).endswith(" bytes free")


def test_a_parent_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExecutionError, match="cannot be written"):
        convert(tmp_path / "file" / "out", NEW)
    assert (tmp_path / "file").is_file()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL])
def test_overwriting_is_refused_where_directories_cannot_be_exchanged(
    out: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: Path) -> None:
        raise OSError(code, os.strerror(code))

    convert(out, OLD)
    monkeypatch.setattr(publish, "exchange", fail)
    finding = refusal(out, overwrite=True)
    assert finding.code == "exchange"
    assert finding.got == os.strerror(code)
    assert_published(out, OLD)
    convert(out.with_name("first"), NEW, overwrite=True)


def test_a_platform_without_the_call_cannot_exchange(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(OSError, match="no call for it") as caught:
        exchange(out, out)
    assert caught.value.errno == errno.ENOSYS


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="needs an atomic exchange")
def test_an_exchange_swaps_two_directories_or_neither(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "zweites ü"
    first.mkdir()
    (first / "inside").touch()
    with pytest.raises(FileNotFoundError):
        exchange(first, second)
    second.mkdir()
    exchange(first, second)
    assert (second / "inside").exists()
    assert not any(first.iterdir())


# What a run that fails leaves behind


def leave(out: Path) -> None:
    """Leave beside ``out`` what a killed run leaves."""
    partial = out.with_name(f".{out.name}.partial")
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    out.with_name(f".{out.name}.lock").touch()


def test_what_a_killed_run_left_is_removed(out: Path) -> None:
    leave(out)
    convert(out, NEW)
    assert_published(out, NEW)


def test_what_runs_to_other_targets_left_stays(out: Path) -> None:
    other = out.with_name("out.partial-2")
    leave(other)
    beside = set(out.parent.iterdir())
    convert(out, NEW)
    assert set(out.parent.iterdir()) == beside | {out}


def test_a_link_in_the_place_of_the_staging_is_removed_not_followed(out: Path) -> None:
    elsewhere = out.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    out.with_name(".out.partial").symlink_to(elsewhere)
    convert(out, NEW)
    assert (elsewhere / "precious").exists()
    assert sorted(os.listdir(out.parent)) == ["elsewhere", "out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_error_inside_leaves_the_target_as_it_was(
    out: Path, error: type[BaseException], overwrite: bool
) -> None:
    if overwrite:
        convert(out, OLD)
    with pytest.raises(error, match="halfway"):
        convert_halfway(out, error("halfway"), overwrite=overwrite)
    assert read(out) == (content(OLD) if overwrite else None)
    assert os.listdir(out.parent) == (["out"] if overwrite else [])


def test_a_directory_that_is_not_published_is_removed(out: Path) -> None:
    with Staging(out) as staging:
        write_file(staging.path / "manifest.json", b"{}")
    assert not any(out.parent.iterdir())


def test_what_comes_into_the_old_directory_at_the_very_last_is_kept(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(first: Path, second: Path) -> None:
        if second == out and not (out / "precious").exists():
            (out / "precious").write_text("kept")
        exchange(first, second)

    convert(out, OLD)
    with Staging(out, overwrite=True) as staging:
        write_file(staging.path / "manifest.json", NEW)
        monkeypatch.setattr(publish, "exchange", late)
        with pytest.raises(ExecutionError, match="not a canonical directory"):
            staging.publish()
    assert read(out) == content(OLD) | {"precious": b"kept"}
    assert os.listdir(out.parent) == ["out"]


def test_a_target_that_appears_meanwhile_is_not_replaced(out: Path) -> None:
    with Staging(out) as staging:
        out.mkdir()
        (out / "precious").touch()
        with pytest.raises(ExecutionError, match="not empty"):
            staging.publish()
    assert os.listdir(out) == ["precious"]
    assert os.listdir(out.parent) == ["out"]


def interrupt_everywhere(
    base: Path, act: Callable[[], None], *, overwrite: bool
) -> Iterator[tuple[Path, BaseException | None]]:
    """Convert again and again, interrupted one call later each time; yield where, and the error."""
    for moment in itertools.count(1):
        out = base / str(moment) / "out"
        out.parent.mkdir()
        if overwrite:
            convert(out, OLD)
        interruption = Interruption(moment, act)
        error: BaseException | None = None
        with pytest.MonkeyPatch.context() as patch:
            interruption.install(patch.setattr)
            try:
                convert(out, NEW, overwrite=overwrite)
            except (ExecutionError, KeyboardInterrupt) as caught:
                error = caught
        if not interruption.happened:
            return
        yield out, error


def assert_whole_and_the_next_run_succeeds(out: Path, overwrite: bool) -> None:
    assert read(out) in (content(OLD) if overwrite else None, content(NEW))
    convert(out, NEW, overwrite=True)
    assert_published(out, NEW)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_disk_that_fails_at_any_call_leaves_old_or_new(tmp_path: Path, overwrite: bool) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    failed = 0
    for out, error in interrupt_everywhere(tmp_path, fail, overwrite=overwrite):
        if error is not None:
            assert "Input/output error" in str(error)
            failed += 1
        assert_whole_and_the_next_run_succeeds(out, overwrite)
    assert failed > 20


@pytest.mark.parametrize("overwrite", [False, True])
def test_ctrl_c_at_any_call_leaves_old_or_new_and_nothing_beside(
    tmp_path: Path, overwrite: bool
) -> None:
    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    for out, error in interrupt_everywhere(tmp_path, interrupt, overwrite=overwrite):
        assert isinstance(error, KeyboardInterrupt)
        assert set(os.listdir(out.parent)) <= {"out"}
        assert_whole_and_the_next_run_succeeds(out, overwrite)


@posix
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_at_any_call_leaves_old_or_new(tmp_path: Path, overwrite: bool) -> None:
    options = ["--overwrite"] if overwrite else []
    subprocess.run([sys.executable, SCENARIO, tmp_path, *options], check=True)
    moments = list(tmp_path.iterdir())
    assert len(moments) > 20
    for moment in moments:
        assert_whole_and_the_next_run_succeeds(moment / "out", overwrite)


@posix
def test_a_real_ctrl_c_in_the_middle_leaves_nothing(out: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from converter.publish import Staging; from converter.write import write_file\n"
        "with Staging(Path(sys.argv[1])) as staging:\n"
        "    print('writing', flush=True)\n"
        "    for number in range(6000):\n"
        "        write_file(staging.path / str(number), b'half'); time.sleep(0.01)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program, out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "writing\n"
    assert refusal(out).code == "locked"
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate()
    assert run.returncode == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")
    assert not any(out.parent.iterdir())


@posix
def test_a_disk_that_fills_up_leaves_nothing_and_says_why(out: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; import publish_scenario\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "publish_scenario.convert(Path(sys.argv[1]), b'n', overwrite=True)"
    )
    convert(out, OLD)
    run = subprocess.run(
        [sys.executable, "-c", program, out], cwd=SCENARIO.parent, capture_output=True, text=True
    )
    assert "ExecutionError" in run.stderr
    assert "cannot be written: File too large" in run.stderr
    assert "raise the limit of file sizes" in run.stderr
    assert_published(out, OLD)


# Two runs at one target


def test_of_two_runs_one_wins_and_the_other_is_told(out: Path) -> None:
    with Staging(out) as staging:
        finding = refusal(out)
        assert (finding.code, finding.where) == ("locked", str(out))
        write_file(staging.path / "manifest.json", b"{}")
        staging.publish()
        assert refusal(out, overwrite=True).code == "locked"
    assert os.listdir(out.parent) == ["out"]


def test_runs_to_different_targets_do_not_meet(tmp_path: Path) -> None:
    with Staging(tmp_path / "a") as first, Staging(tmp_path / "b") as second:
        write_file(first.path / "manifest.json", b"a")
        write_file(second.path / "manifest.json", b"b")
        second.publish()
        first.publish()
    assert read(tmp_path / "a") == {"manifest.json": b"a"}
    assert read(tmp_path / "b") == {"manifest.json": b"b"}


def test_a_target_has_one_lock_whatever_its_spelling(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with Staging(tmp_path / "real" / "out"):
        assert refusal(tmp_path / "link" / "out").code == "locked"


def test_the_lock_is_handed_over_and_never_held_twice(out: Path) -> None:
    inside: list[int] = []
    together: list[int] = []

    def run() -> None:
        turns = 0
        while turns < 25:
            try:
                with Staging(out):
                    inside.append(1)
                    together.append(len(inside))
                    inside.pop()
                    turns += 1
            except ExecutionError as error:
                assert error.findings[0].code == "locked"  # noqa: PT017

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [1] * 100
    assert not any(out.parent.iterdir())
