"""The readers and the ring, and what happens to a load when something goes wrong under it."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from canonical_fixture import assert_same_bytes, every_dtype, flip, write_canonical
from torch import Tensor

from converter.canonical import MANIFEST_NAME, SUMS_NAME, WEIGHTS_NAME
from converter.errors import ConverterError, MismatchError, SourceError
from converter.layout import layouts
from converter.positional import WriteBuffer, read_at
from converter.publish import exchange
from converter.runtime import Check, directory, load_tensors
from converter.runtime.directory import opened
from converter.runtime.read import Wait, Window, plan_units, read_units, ring

CHECKS: list[Check] = ["header", "full"]
READ_AT = "converter.runtime.read.read_at"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.runtime.read.CHUNK_BYTES", 256)


@pytest.fixture
def late_copies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Load through a ring whose copies are late, as to a device; returns a log of them."""
    log: list[str] = []

    @contextmanager
    def windows(device: torch.device, *, readers: int, data_bytes: int) -> Iterator[Window]:
        def copy(memory: Tensor, filled: Tensor) -> None:
            time.sleep(0.001)
            memory.copy_(filled)
            log.append("copied")

        def send(memory: Tensor, filled: Tensor) -> Wait:
            log.append("sent")
            return stream.submit(copy, memory, filled).result

        with ThreadPoolExecutor(1) as stream:
            with ring(lambda: torch.empty(256, dtype=torch.uint8), 2, send) as window:
                yield window
            assert log.count("sent") == log.count("copied")

    monkeypatch.setattr("converter.runtime.tensors.windows", windows)
    return log


@pytest.mark.parametrize("hashed", [False, True])
def test_units_cover_the_data_in_order_and_only_one_large_tensor_exceeds_a_chunk(
    tmp_path: Path, hashed: bool
) -> None:
    with opened(write_canonical(tmp_path / "toy", every_dtype())) as canonical:
        (file,) = canonical.files
        units = plan_units(file, torch.empty(file.data_bytes, dtype=torch.uint8), hashed=hashed)
    position = file.data_begin
    for unit in units:
        assert unit.begin == position
        position += unit.memory.numel()
        assert unit.memory.numel() <= 256 or len(unit.extents) == 1
    assert position == file.size
    assert [extent.tensor for unit in units for extent in unit.extents] == (
        [record.name for record in file.tensors] if hashed else []
    )
    assert len(units) < len(file.tensors) or not hashed


@pytest.mark.parametrize("check", CHECKS)
def test_a_buffer_is_lent_again_only_after_its_copy_is_done(
    tmp_path: Path, late_copies: list[str], check: Check
) -> None:
    tensors = every_dtype()
    path = write_canonical(tmp_path / "toy", tensors)
    assert_same_bytes(load_tensors(path, check=check), tensors)
    assert late_copies.count("copied") > 10


def test_bytes_that_differ_end_the_load_after_all_copies(
    tmp_path: Path, late_copies: list[str]
) -> None:
    path = write_canonical(tmp_path / "toy", every_dtype())
    flip(path / WEIGHTS_NAME, 4096)
    with pytest.raises(MismatchError):
        load_tensors(path, check="full")
    assert late_copies.count("sent") == late_copies.count("copied")


def test_a_buffer_is_made_when_it_is_first_needed_and_no_more_than_asked() -> None:
    made: list[Tensor] = []

    def make() -> Tensor:
        made.append(torch.empty(256, dtype=torch.uint8))
        return made[-1]

    memory = torch.zeros(5, 100, dtype=torch.uint8)

    def send(memory: Tensor, filled: Tensor) -> Wait:
        memory.copy_(filled)
        return lambda: None

    with ring(make, 3, send) as window:
        assert not made
        for number, row in enumerate(memory):
            with window(row) as chunk:
                assert len(made) == min(number + 1, 3)
                chunk[:] = bytes([number]) * 100
    assert memory.tolist() == [[number] * 100 for number in range(5)]


def test_all_copies_are_waited_for_though_one_fails() -> None:
    waited: list[int] = []

    def send(memory: Tensor, filled: Tensor) -> Wait:
        def wait() -> None:
            waited.append(int(memory[0]))
            if memory[0] == 1:
                raise RuntimeError("the device is gone")

        return wait

    memory = torch.arange(3, dtype=torch.uint8)[:, None]
    stack = ExitStack()
    window = stack.enter_context(ring(lambda: torch.empty(256, dtype=torch.uint8), 3, send))
    for row in memory:
        with window(row):
            pass
    with pytest.raises(RuntimeError, match="the device is gone"):
        stack.close()
    assert sorted(waited) == [0, 1, 2]


def test_a_chunk_that_could_not_be_read_is_not_sent() -> None:
    sent: list[Tensor] = []

    def send(memory: Tensor, filled: Tensor) -> Wait:
        sent.append(memory)
        return lambda: None

    with ring(lambda: torch.empty(256, dtype=torch.uint8), 1, send) as window:
        lent = window(torch.empty(4, dtype=torch.uint8))
        with pytest.raises(OSError, match="the disk is gone"), lent:
            raise OSError("the disk is gone")
        with window(torch.empty(4, dtype=torch.uint8)):
            pass
    assert len(sent) == 1


def test_the_largest_units_are_read_first_so_that_readers_end_together(tmp_path: Path) -> None:
    sizes = [64, 1024, 100, 4096, 30]
    tensors = {f"t{i}": torch.ones(size, dtype=torch.uint8) for i, size in enumerate(sizes)}
    began: list[int] = []

    @contextmanager
    def window(memory: Tensor) -> Iterator[memoryview]:
        began.append(memory.numel())
        yield memory.numpy().data

    with opened(write_canonical(tmp_path / "toy", tensors)) as canonical:
        (file,) = canonical.files
        memory = torch.empty(file.data_bytes, dtype=torch.uint8)
        units = plan_units(file, memory, hashed=True)
        assert not read_units(units, window, readers=1)
    assert began == sorted(began, reverse=True)
    assert sum(began) == sum(sizes)


def test_a_failed_copy_ends_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(memory: Tensor, filled: Tensor) -> Wait:
        raise RuntimeError("the device is gone")

    @contextmanager
    def windows(device: torch.device, *, readers: int, data_bytes: int) -> Iterator[Window]:
        with ring(lambda: torch.empty(256, dtype=torch.uint8), 1, send) as window:
            yield window

    monkeypatch.setattr("converter.runtime.tensors.windows", windows)
    path = write_canonical(tmp_path / "toy", every_dtype())
    with pytest.raises(RuntimeError, match="the device is gone"):
        load_tensors(path)


@pytest.mark.parametrize("check", CHECKS)
def test_an_error_in_one_reader_stops_the_others_and_is_raised_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Check
) -> None:
    calls: list[int] = []

    def failing(fd: int, buffer: WriteBuffer, position: int) -> None:
        calls.append(position)
        if len(calls) == 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        read_at(fd, buffer, position)
        time.sleep(0.01)

    monkeypatch.setattr(READ_AT, failing)
    path = write_canonical(tmp_path / "toy", {f"t{i}": torch.ones(64) for i in range(100)})
    with pytest.raises(SourceError, match=f"{WEIGHTS_NAME}: cannot be read: Input/output error"):
        load_tensors(path, check=check)
    assert len(calls) < 50
    assert not [thread for thread in threading.enumerate() if "reader" in thread.name]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("swap", ["edit", "truncate"])
def test_a_file_that_changes_under_a_load_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: str, check: Check
) -> None:
    path = write_canonical(tmp_path / "toy", {f"t{i}": torch.ones(64) for i in range(20)})
    other = write_canonical(tmp_path / "other", {f"t{i}": torch.zeros(64) for i in range(20)})
    calls: list[int] = []

    def swapping(fd: int, buffer: WriteBuffer, position: int) -> None:
        calls.append(position)
        if len(calls) == 5:
            if swap == "edit":
                (path / WEIGHTS_NAME).write_bytes((other / WEIGHTS_NAME).read_bytes())
            else:
                os.truncate(path / WEIGHTS_NAME, 4200)
        read_at(fd, buffer, position)

    monkeypatch.setattr(READ_AT, swapping)
    with pytest.raises(MismatchError, match="while it was read"):
        load_tensors(path, check=check)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("act", [os.remove, shutil.rmtree])
def test_what_is_removed_under_a_load_is_loaded_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], None], check: Check
) -> None:
    tensors = {f"t{i}": torch.full((64,), float(i)) for i in range(20)}
    path = write_canonical(tmp_path / "toy", tensors)
    calls: list[int] = []

    def removing(fd: int, buffer: WriteBuffer, position: int) -> None:
        calls.append(position)
        if len(calls) == 5:
            act(path / WEIGHTS_NAME if act is os.remove else path)
        read_at(fd, buffer, position)

    monkeypatch.setattr(READ_AT, removing)
    assert_same_bytes(load_tensors(path, check=check), tensors)
    assert len(calls) > 5


def test_proven_bytes_are_right_whatever_is_done_to_their_file_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {f"t{i}": torch.full((64,), float(i)) for i in range(20)}
    path = write_canonical(tmp_path / "toy", tensors)

    def touching(fd: int, buffer: WriteBuffer, position: int) -> None:
        read_at(fd, buffer, position)
        os.utime(path / WEIGHTS_NAME, ns=(0, 0))

    monkeypatch.setattr(READ_AT, touching)
    assert_same_bytes(load_tensors(path, check="full"), tensors)
    os.utime(path / WEIGHTS_NAME)
    with pytest.raises(MismatchError, match="changed while it was read"):
        load_tensors(path, check="header")


def test_a_file_that_is_edited_all_the_time_is_loaded_as_it_was_written_or_not_at_all(
    tmp_path: Path,
) -> None:
    right = {f"t{i}": torch.full((64,), float(i)) for i in range(50)}
    wrong = {name: tensor + 1 for name, tensor in right.items()}
    path = write_canonical(tmp_path / "right", right)
    contents = [
        (folder / WEIGHTS_NAME).read_bytes()
        for folder in (write_canonical(tmp_path / "wrong", wrong), path)
    ]
    stop = threading.Event()

    def edit() -> None:
        while not stop.is_set():
            for content in contents:
                with (path / WEIGHTS_NAME).open("r+b") as stream:
                    stream.write(content)
                time.sleep(0.002)

    loaded = refused = 0
    editor = threading.Thread(target=edit)
    editor.start()
    try:
        for _ in range(60):
            try:
                tensors = load_tensors(path, check="full")
            except ConverterError:
                refused += 1
            else:
                loaded += 1
                assert_same_bytes(tensors, right)
    finally:
        stop.set()
        editor.join()
    assert loaded + refused == 60
    assert refused > 0


def test_weights_that_are_not_those_of_the_manifest_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(200)})
    other = write_canonical(tmp_path / "new", {"a": torch.ones(200)})

    def swapping(*arguments: Any) -> Any:
        (other / WEIGHTS_NAME).replace(path / WEIGHTS_NAME)
        return layouts(*arguments)

    monkeypatch.setattr("converter.runtime.directory.layouts", swapping)
    with pytest.raises(MismatchError, match="the bytes are not those that were written"):
        load_tensors(path, check="full")
    monkeypatch.undo()
    for name in (MANIFEST_NAME, SUMS_NAME):
        (other / name).replace(path / name)
    load_tensors(path, check="full")


@pytest.mark.parametrize("files_left", range(4))
def test_a_tree_that_is_taken_away_while_it_is_opened_gives_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files_left: int
) -> None:
    old, new = ({"a": torch.full((200,), value), "b": torch.zeros(5)} for value in (0.0, 1.0))
    path = write_canonical(tmp_path / "toy", old, shards=["a", "b"])
    other = write_canonical(tmp_path / "new", new, shards=["a", "b"])
    original = directory._open_file
    opened: list[str] = []

    def exchanging(folder: int, file: Path) -> int:
        opened.append(file.name)
        if len(opened) == files_left + 1:
            exchange(other, path)
            shutil.rmtree(other)
        return original(folder, file)

    monkeypatch.setattr(directory, "_open_file", exchanging)
    assert_same_bytes(load_tensors(path, check="full"), new)
    assert not other.exists()


def test_a_path_where_every_tree_is_taken_away_at_once_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(4)})
    (path / WEIGHTS_NAME).unlink()
    monkeypatch.setattr(directory, "_is_at", lambda folder, path: False)
    with pytest.raises(MismatchError, match="the file is missing"):
        load_tensors(path)


@pytest.mark.parametrize("moment", ["converter.runtime.directory.layouts", READ_AT])
def test_a_directory_that_is_replaced_under_a_load_gives_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    old, new = {"a": torch.zeros(200)}, {"a": torch.ones(200)}
    path = write_canonical(tmp_path / "toy", old)
    other = write_canonical(tmp_path / "new", new)
    original = read_at if moment == READ_AT else layouts

    def exchanging(*arguments: Any) -> Any:
        if other.exists():
            path.rename(tmp_path / "old")
            other.rename(path)
        return original(*arguments)

    monkeypatch.setattr(moment, exchanging)
    assert_same_bytes(load_tensors(path, check="full"), old)
    assert_same_bytes(load_tensors(path, check="full"), new)
