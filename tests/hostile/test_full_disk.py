"""Disks without room, limits on files, and places where nothing may be written."""

from __future__ import annotations

import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Done, Forks, forks, forks_among_mounts
from targets import Target, make_target

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

DISK_BYTES = 32 << 20
PAGE_BYTES = 4096


@pytest.fixture(scope="module")
def conversions() -> Iterator[Forks]:
    with forks() as program:
        yield program


def assert_refused(done: Done, *words: str) -> None:
    assert done.status == 6, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# A disk that is full


@pytest.fixture(scope="module")
def on_a_small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Forks, Target]]:
    """A target on a disk of its own."""
    folder = tmp_path_factory.mktemp("disk")
    (folder / "to").mkdir()
    mount = f"mount -t tmpfs -o size={DISK_BYTES} tmpfs '{folder}/to'"
    with forks_among_mounts(mount) as program:
        yield program, make_target("model", folder, program)


def fill(target: Target, free_bytes: int) -> None:
    """Leave that much room on the disk of the target."""
    filler = target.out.with_name("filler")
    filler.unlink(missing_ok=True)
    disk = os.statvfs(target.out.parent)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - free_bytes)


@pytest.mark.parametrize("found", ["early", "late"])
def test_a_disk_that_fills_up_anywhere_leaves_the_old_output_and_nothing_beside(
    on_a_small_disk: tuple[Forks, Target], found: str
) -> None:
    program, target = on_a_small_disk
    whole = sum(len(data) for data in target.wholes["a"].values())
    reasons: Counter[str] = Counter()
    # All that is written but the last pages: the texts, which nobody counted beforehand.
    ends = [whole - pages * PAGE_BYTES for pages in range(0, 16, 2)]
    for free_bytes in (PAGE_BYTES, whole // 4, whole // 2, whole - (1 << 17), *ends):
        fill(target, free_bytes)
        words = (*target.arguments["a"], "--overwrite")
        done = program.run(*words, late_full_disk=found == "late")
        assert_refused(done, "out", "free some space, or write to another disk")
        assert (target.state(), target.beside()) == ("b", {"filler"})
        reasons["counted" if "not enough space" in done.stderr else "met"] += 1
    if found == "early":
        assert reasons["counted"]
        assert reasons["met"]
    else:
        assert set(reasons) == {"met"}
    fill(target, whole + (1 << 17))
    assert program.run(*words).status == 0
    assert (target.state(), target.beside()) == ("a", {"filler"})
    target.out.with_name("filler").unlink()
    assert program.run(*target.arguments["b"], "--overwrite").status == 0


# A limit on the size of files


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", ["model", "bundle"])
def test_a_limit_on_file_sizes_leaves_the_old_output_and_nothing_beside(
    tmp_path: Path, conversions: Forks, kind: str, late: bool
) -> None:
    target = make_target(kind, tmp_path, conversions)
    for limit in (PAGE_BYTES, 1 << 20):
        befalls = {"max_file_bytes": limit, "late_full_disk": late}
        done = conversions.run(*target.arguments["a"], "--overwrite", **befalls)
        assert_refused(done, "File too large", "raise the limit of file sizes")
        assert (target.state(), target.beside()) == ("b", set())
    target.out.rename(tmp_path / "elsewhere")
    done = conversions.run(*target.arguments["a"], **befalls)
    assert_refused(done, "File too large")
    assert (target.state(), target.beside()) == ("absent", set())


# A place where nothing may be written


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["model", "bundle"])
def test_a_directory_that_may_not_be_written_to_stays_as_it_is(
    tmp_path: Path, conversions: Forks, kind: str, overwrite: bool
) -> None:
    target = make_target(kind, tmp_path, conversions)
    if not overwrite:
        target.out.rename(tmp_path / "elsewhere")
    state = target.state()
    target.out.parent.chmod(0o555)
    try:
        words = (*target.arguments["a"], *["--overwrite"] * overwrite)
        done = conversions.run(*words, obeys_modes=True)
        assert_refused(done, "Permission denied", "write where you have the permission to")
        assert (target.state(), target.beside()) == (state, set())
    finally:
        target.out.parent.chmod(0o755)
    assert conversions.run(*words, obeys_modes=True).status == 0


def test_an_old_output_that_may_not_be_written_to_is_replaced_all_the_same(
    tmp_path: Path, conversions: Forks
) -> None:
    target = make_target("model", tmp_path, conversions)
    for path in target.out.iterdir():
        path.chmod(0o444)
    done = conversions.run(*target.arguments["a"], "--overwrite", obeys_modes=True)
    assert done.status == 0, done.stderr
    assert (target.state(), target.beside()) == ("a", set())
    assert {stat.S_IMODE(path.stat().st_mode) for path in target.out.iterdir()} == {0o644}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_read_only_file_system_stays_as_it_is(
    tmp_path: Path, conversions: Forks, overwrite: bool
) -> None:
    target = make_target("model", tmp_path, conversions)
    if not overwrite:
        target.out.rename(tmp_path / "elsewhere")
    state, folder = target.state(), tmp_path / "to"
    mounts = f"mount --bind '{folder}' '{folder}'", f"mount -o remount,bind,ro '{folder}'"
    with forks_among_mounts(*mounts) as program:
        done = program.run(*target.arguments["a"], *["--overwrite"] * overwrite)
        assert_refused(done, "Read-only file system", "write elsewhere")
    assert (target.state(), target.beside()) == (state, set())
