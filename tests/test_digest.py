import functools
import hashlib
import os
import tracemalloc
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import digest

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_digest_is_that_of_sha256sum() -> None:
    assert digest.sha256(b"") == EMPTY
    assert digest.sha256(b"abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@settings(deadline=None)
@given(data=st.binary(max_size=64), begin=st.integers(0, 64), size=st.integers(0, 64))
def test_a_range_has_the_digest_of_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, begin: int, size: int
) -> None:
    begin = min(begin, len(data))
    end = min(begin + size, len(data))
    path = tmp_path_factory.getbasetemp() / "range"
    path.write_bytes(data)
    with path.open("rb") as file:
        assert digest.sha256_range(file.fileno(), begin, end) == digest.sha256(data[begin:end])


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, (5 << 20) + 17])
def test_block_borders_do_not_show(tmp_path: Path, size: int) -> None:
    path = tmp_path / "blocks"
    path.write_bytes(os.urandom(size))
    expected = hashlib.sha256(path.read_bytes()[3:]).hexdigest()
    with path.open("rb") as file:
        assert digest.sha256_range(file.fileno(), 3, size) == expected


def test_a_range_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"abc")
    with path.open("rb") as file, pytest.raises(EOFError):
        digest.sha256_range(file.fileno(), 0, 4)


def test_a_digest_that_nobody_wants_any_more_ends_at_the_next_block(tmp_path: Path) -> None:
    path = tmp_path / "blocks"
    path.write_bytes(bytes(100))
    asked = iter([False, False, True])
    with path.open("rb") as file, pytest.raises(CancelledError):
        digest.sha256_range(
            file.fileno(), 0, 100, block_bytes=10, given_up=functools.partial(next, asked)
        )
    assert not list(asked)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    with path.open("rb") as file:
        digest.sha256_range(file.fileno(), 0, 64 << 20)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 3 << 20
