"""Files put together in memory: which bytes wait, which go to the disk early, and what fails."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter import write_disk
from converter.canonical import Placement, encode_header
from converter.errors import ExecutionError
from converter.spec import TensorSpec
from converter.write import WeightsFile
from converter.write_blocks import BlockMemory
from converter.write_disk import DiskFile

PAGE = 4096
Parts = Sequence[tuple[int, int]]
DIRECT = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no way past the cache here")


def one_tensor(size: int) -> tuple[Placement, ...]:
    return (Placement("a", TensorSpec("U8", (size,)), 0, size),)


def pages(count: int, rest: int = 0) -> bytes:
    return random.Random(count).randbytes(count * PAGE + rest)


class Log:
    """What a file writes: begin and size, by the way that it goes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cached: list[tuple[int, int]] = []
        self.whole: list[tuple[int, int]] = []
        for name, log in (("write", self.cached), ("write_whole", self.whole)):
            self._watch(monkeypatch, name, log)

    def _watch(
        self, monkeypatch: pytest.MonkeyPatch, name: str, log: list[tuple[int, int]]
    ) -> None:
        call = getattr(DiskFile, name)

        def logged(file: DiskFile, position: int, data: memoryview) -> None:
            log.append((position, len(data)))
            call(file, position, data)

        monkeypatch.setattr(DiskFile, name, logged)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def put_together(
    path: Path, data: bytes, units: Sequence[Parts], *, window: int, threads: int = 1
) -> None:
    """Write ``data`` by units of parts, and hold the digest and the file against it."""
    placements = one_tensor(len(data))
    memory = BlockMemory(window=window, block_bytes=PAGE, patience_seconds=0.001)

    def write(unit: Parts) -> None:
        with memory.work():
            for begin, end in unit:
                file.write(begin, data[begin:end])

    with memory, WeightsFile(path, placements, memory) as file, ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, units))
        assert file.sha256() == hashlib.sha256(encode_header(placements) + data).hexdigest()
    assert path.read_bytes() == encode_header(placements) + data


def test_what_comes_in_order_is_in_memory_until_its_block_is_stored(path: Path, log: Log) -> None:
    data = pages(6, rest=5)
    steps = [*range(0, len(data), 1000), len(data)]
    put_together(path, data, [[part] for part in pairwise(steps)], window=8)
    header = len(encode_header(one_tensor(len(data))))
    assert header == PAGE
    assert sorted(log.whole) == [(PAGE * n, PAGE) for n in range(1, 7)] + [(PAGE * 7, 5)]
    assert sorted(log.cached) == [(0, PAGE), (PAGE * 7, 5)]  # no whole sector


def test_what_nobody_may_wait_for_goes_to_the_disk_at_once(path: Path, log: Log) -> None:
    backwards = [(n * PAGE, (n + 1) * PAGE) for n in reversed(range(8))]
    put_together(path, pages(8), [[part] for part in backwards], window=3)
    early = {position for position, _ in log.cached}
    assert early == {0} | {PAGE * n for n in (4, 5, 6, 7, 8)}  # the window begins at the header
    assert sorted(log.whole) == [(PAGE * n, PAGE) for n in (1, 2, 3)]


def test_a_block_that_went_to_the_disk_early_stays_there(path: Path, log: Log) -> None:
    far = [(4 * PAGE, 4 * PAGE + 10), (0, PAGE), (PAGE, 4 * PAGE), (4 * PAGE + 10, 5 * PAGE)]
    put_together(path, pages(5), [far], window=2)
    assert (5 * PAGE, 10) in log.cached
    assert (5 * PAGE + 10, PAGE - 10) in log.cached
    assert 5 * PAGE not in {position for position, _ in log.whole}


def test_what_comes_later_waits_while_another_is_at_work(path: Path, log: Log) -> None:
    data = pages(8)
    memory = BlockMemory(window=2, block_bytes=PAGE)
    done = Event()

    def write_far() -> None:
        with memory.work():
            file.write(7 * PAGE, data[7 * PAGE :])
        done.set()

    with memory, WeightsFile(path, one_tensor(len(data)), memory) as file, memory.work():
        far = Thread(target=write_far)
        far.start()
        assert not done.wait(0.1)
        for begin in range(0, 7 * PAGE, 512):
            file.write(begin, data[begin : begin + 512])
        assert done.wait(10)
        far.join()
    assert path.read_bytes()[PAGE:] == data
    assert log.cached == [(0, PAGE)]


def test_nobody_waits_for_one_who_is_done(path: Path) -> None:
    """All who wait are let go when the last one who could have made the rest has left."""
    data = pages(8)
    memory = BlockMemory(window=2, block_bytes=PAGE)
    both = Barrier(3)

    def write_far(page: int) -> None:
        with memory.work():
            both.wait()
            file.write(page * PAGE, data[page * PAGE : (page + 1) * PAGE])

    with memory, WeightsFile(path, one_tensor(len(data)), memory) as file:
        with memory.work():
            far = [Thread(target=write_far, args=(page,)) for page in (6, 7)]
            for thread in far:
                thread.start()
            both.wait()
        for thread in far:
            thread.join(10)
            assert not thread.is_alive()
        file.write(0, data[: 6 * PAGE])
    assert path.read_bytes()[PAGE:] == data


@given(
    size=st.integers(1, 12 * PAGE),
    cuts=st.lists(st.integers(1, 12 * PAGE), max_size=30),
    window=st.integers(1, 6),
    threads=st.integers(1, 4),
    order=st.randoms(use_true_random=False),
)
def test_any_parts_in_any_order_make_the_same_file(
    tmp_path_factory: pytest.TempPathFactory,
    size: int,
    cuts: list[int],
    window: int,
    threads: int,
    order: random.Random,
) -> None:
    steps = sorted({0, size, *(cut for cut in cuts if cut < size)})
    units = [[part] for part in pairwise(steps)]
    order.shuffle(units)
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    put_together(path, random.Random(size).randbytes(size), units, window=window, threads=threads)


@pytest.mark.parametrize(("threads", "window"), [(8, 1), (6, 2), (3, 1)])
def test_units_of_far_apart_parts_never_wait_for_each_other_for_ever(
    tmp_path: Path, threads: int, window: int
) -> None:
    for seed in range(25):
        data = random.Random(seed).randbytes(40 * PAGE)
        parts = [(begin, begin + 640) for begin in range(0, len(data), 640)]
        random.Random(seed).shuffle(parts)
        units = [parts[first : first + 8] for first in range(0, len(parts), 8)]
        put_together(tmp_path / str(seed), data, units, window=window, threads=threads)


@pytest.mark.parametrize("files", [1, 2, 5])
def test_several_files_share_the_memory(tmp_path: Path, files: int) -> None:
    data = [pages(6, rest=number) for number in range(5)]
    memory = BlockMemory(files, window=2, block_bytes=PAGE)
    work = [(number, begin) for number in range(5) for begin in range(0, len(data[number]), 700)]
    random.Random(files).shuffle(work)
    with ExitStack() as stack:
        stack.enter_context(memory)
        made = [
            stack.enter_context(WeightsFile(tmp_path / str(n), one_tensor(len(part)), memory))
            for n, part in enumerate(data)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(4))

        def write(item: tuple[int, int]) -> None:
            number, begin = item
            with memory.work():
                made[number].write(begin, data[number][begin : begin + 700])

        list(pool.map(write, work))
        digests = [file.sha256() for file in made]
    for number, part in enumerate(data):
        whole = encode_header(one_tensor(len(part))) + part
        assert (tmp_path / str(number)).read_bytes() == whole
        assert digests[number] == hashlib.sha256(whole).hexdigest()


def test_memory_is_no_more_than_the_window_and_what_is_on_its_way(path: Path) -> None:
    memory = BlockMemory(window=3, block_bytes=PAGE)
    taken = []
    take = memory.take

    def counted() -> memoryview:
        made = take()
        taken.append(id(made.obj))
        return made

    memory.take = counted  # type: ignore[method-assign]
    data = pages(64)
    with memory, WeightsFile(path, one_tensor(len(data)), memory) as file, memory.work():
        for begin in range(0, len(data), 512):
            file.write(begin, data[begin : begin + 512])
    assert len(taken) >= 60
    assert len(set(taken)) <= 3 + 4 + 1


@DIRECT
def test_whole_blocks_go_past_the_cache(
    path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    flags = []
    system_open = os.open

    def opened(name: Path, how: int, *mode: int) -> int:
        flags.append(how)
        return system_open(name, how, *mode)

    monkeypatch.setattr(os, "open", opened)
    put_together(path, pages(3), [[(0, 3 * PAGE)]], window=8)
    assert [bool(how & os.O_DIRECT) for how in flags] == [False, True]
    assert len(log.whole) == 3


@DIRECT
@pytest.mark.parametrize("where", ["open", "pwrite"])
def test_where_there_is_no_way_past_the_cache_everything_goes_through_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, log: Log, where: str
) -> None:
    system_open, pwrite = os.open, os.pwrite
    refused = []

    def opened(name: Path, how: int, *mode: int) -> int:
        if where == "open" and how & os.O_DIRECT:
            refused.append("open")
            raise OSError(errno.EINVAL, "Invalid argument")
        fd = system_open(name, how, *mode)
        if how & os.O_DIRECT:
            direct.append(fd)
        return fd

    def written(fd: int, data: memoryview, position: int) -> int:
        if fd in direct:
            refused.append("pwrite")
            raise OSError(errno.EINVAL, "Invalid argument")
        return pwrite(fd, data, position)

    direct: list[int] = []
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "pwrite", written)
    put_together(path, pages(5), [[(0, 5 * PAGE)]], window=8)
    assert set(refused) == {where}
    assert {(PAGE * n, PAGE) for n in range(6)} == set(log.cached)


@DIRECT
def test_a_disk_that_fails_behind_the_writer_is_an_error_of_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: DiskFile, position: int, data: memoryview) -> None:
        if position == 2 * PAGE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(DiskFile, "write_whole", fail)
    with pytest.raises(ExecutionError, match="free some space") as caught:
        put_together(path, pages(40), [[(n * PAGE, n * PAGE + PAGE)] for n in range(40)], window=2)
    assert caught.value.findings[0].where == str(path)


def test_a_file_that_is_given_up_waits_for_nobody(path: Path) -> None:
    memory = BlockMemory(window=2, block_bytes=PAGE)

    def give_up() -> None:
        with (
            memory,
            WeightsFile(path, one_tensor(4 * PAGE), memory) as file,
            WeightsFile(path.with_name("other"), one_tensor(4 * PAGE), memory),
        ):
            file.write(0, bytes(PAGE))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_up()


def test_what_went_through_the_cache_is_flushed_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(write_disk, "_FLUSHED_BYTES", 100)
    monkeypatch.setattr(write_disk, "_flush", flushed.append)
    file = DiskFile(tmp_path / "file", 300)
    for begin in range(0, 300, 60):
        file.write(begin, bytes(60))
    file.close()
    assert len(flushed) == 2
