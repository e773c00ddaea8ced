import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter.positional import open_flags, read_at, write_at


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")
    fd = os.open(path, open_flags("O_RDWR", "O_BINARY"))
    yield fd
    os.close(fd)


@pytest.fixture(params=["by position", "by seeking"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "by seeking":  # as on Windows, which has neither call
        monkeypatch.delattr(os, "preadv", raising=False)
        monkeypatch.delattr(os, "pwrite", raising=False)


@pytest.mark.usefixtures("platform")
def test_a_buffer_is_filled_from_a_position(descriptor: int) -> None:
    buffer = bytearray(4)
    read_at(descriptor, buffer, 3)
    assert buffer == b"3456"


@pytest.mark.usefixtures("platform")
def test_bytes_are_written_at_a_position(descriptor: int) -> None:
    write_at(descriptor, b"abc", 2)
    write_at(descriptor, memoryview(b"xyz"), 9)
    buffer = bytearray(12)
    read_at(descriptor, buffer, 0)
    assert buffer == b"01abc5678xyz"


@pytest.mark.usefixtures("platform")
def test_a_file_that_ends_early_is_an_error(descriptor: int) -> None:
    with pytest.raises(EOFError, match="ends before byte 12"):
        read_at(descriptor, bytearray(4), 8)


def test_nothing_is_read_into_an_empty_buffer(descriptor: int) -> None:
    read_at(descriptor, bytearray(), 100)
    write_at(descriptor, b"", 100)
    assert os.fstat(descriptor).st_size == 10


def test_a_buffer_of_wider_elements_is_filled_whole(descriptor: int) -> None:
    buffer = bytearray(8)
    read_at(descriptor, memoryview(buffer).cast("I"), 1)
    assert buffer == b"12345678"


def test_short_reads_and_writes_are_carried_on(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    preadv, pwrite = os.preadv, os.pwrite
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: preadv(fd, [views[0][:3]], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, view, at: pwrite(fd, view[:3], at))
    write_at(descriptor, b"abcdefgh", 1)
    buffer = bytearray(10)
    read_at(descriptor, buffer, 0)
    assert buffer == b"0abcdefgh9"


def test_a_flag_that_the_platform_lacks_is_left_out() -> None:
    assert open_flags("O_RDWR", "O_CREAT", "O_OF_ANOTHER_PLATFORM") == os.O_RDWR | os.O_CREAT
