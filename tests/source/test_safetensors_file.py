import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from converter.errors import ExecutionError, SourceError
from converter.source import Source, SourceFile, open_source, regular_file
from converter.spec import TensorSpec

VALUES: dict[str, NDArray[Any]] = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 4), np.float16),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(VALUES, path, {"format": "np"})
    return path


def test_header_metadata_and_file_are_known_at_once(path: Path) -> None:
    with open_source(path) as source:
        assert source.header == {
            "a": TensorSpec("I64", ()),
            "b.weight": TensorSpec("F32", (2, 3)),
            "empty": TensorSpec("F16", (0, 4)),
        }
        assert source.metadata == {"format": "np"}
        assert source.files == (SourceFile("model.safetensors", path, path.stat().st_size),)


def test_exactly_the_bytes_of_a_tensor_are_read(path: Path) -> None:
    with open_source(path) as source:
        assert next(iter(source.header)) == "a", "tensors come in the order of their data"
        for name, value in VALUES.items():
            assert source.read(name) == value.tobytes()


def test_a_tensor_is_read_in_pieces(path: Path) -> None:
    expected = VALUES["b.weight"].tobytes()
    with open_source(path) as source:
        piece = bytearray(10)
        source.read_into("b.weight", piece, 8)
        assert piece == expected[8:18]
        source.read_into("b.weight", memoryview(piece)[:0], len(expected))
        for begin, size in [(15, 10), (-1, 4), (0, 25)]:
            with pytest.raises(ValueError, match="ends before"):
                source.read_into("b.weight", bytearray(size), begin)
        with pytest.raises(KeyError):
            source.read("c")


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    values = {f"t{n}": np.full(5000, n, np.int32) for n in range(40)}
    safetensors.numpy.save_file(values, tmp_path / "many.safetensors")
    with open_source(tmp_path / "many.safetensors") as source, ThreadPoolExecutor(8) as pool:
        for name, data in zip(
            list(values) * 5, pool.map(source.read, list(values) * 5), strict=True
        ):
            assert data == values[name].tobytes()


def test_the_digest_is_that_of_the_file_that_was_opened(path: Path) -> None:
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    with open_source(path) as source:
        path.unlink()
        assert source.sha256(source.files[0]) == expected
        with pytest.raises(ValueError, match=r"other\.safetensors is not of this checkpoint"):
            source.sha256(SourceFile("other.safetensors", path, 1))


def test_a_link_is_followed_and_keeps_its_own_name(path: Path, tmp_path: Path) -> None:
    blob = path.rename(tmp_path / "0123abcd")  # as in the cache of the Hugging Face Hub
    path.symlink_to(blob)
    with open_source(str(path)) as source:
        assert source.files[0].name == "model.safetensors"
        assert source.read("a") == VALUES["a"].tobytes()


def test_a_file_replaced_meanwhile_is_still_the_one_that_was_checked(
    path: Path, tmp_path: Path
) -> None:
    with open_source(path) as source:
        other = tmp_path / "other.safetensors"
        safetensors.numpy.save_file({"a": np.array(8)}, other)
        other.replace(path)
        assert source.read("a") == VALUES["a"].tobytes()
        source.check_unchanged()


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    os.utime(path, ns=(1, 1))  # the clock of the file system is too coarse for a test


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("change", [append, overwrite, truncate])
def test_a_file_changed_while_it_was_read_is_an_error(
    path: Path, change: Callable[[Path], None]
) -> None:
    with open_source(path) as source:
        source.check_unchanged()
        change(path)
        with pytest.raises(SourceError, match="changed while it was read") as caught:
            source.check_unchanged()
        assert caught.value.findings[0].code == "changed"


def test_a_file_truncated_while_it_was_read_is_an_error_not_a_crash(path: Path) -> None:
    with open_source(path) as source:
        os.truncate(path, 16)
        for read in (lambda: source.read("b.weight"), lambda: source.sha256(source.files[0])):
            with pytest.raises(SourceError, match="cannot be read: the file ends before byte"):
                read()


def test_a_failing_disk_is_an_error_with_its_reason(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with open_source(path) as source:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(SourceError, match="cannot be read: Input/output error"):
            source.read("b.weight")


def test_a_tensor_beyond_all_memory_is_an_error_not_a_crash(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(size: int) -> bytearray:
        raise MemoryError

    with open_source(path) as source:
        monkeypatch.setattr(regular_file, "bytearray", exhausted, raising=False)
        with pytest.raises(ExecutionError, match="fit in memory") as caught:
            source.read("b.weight")
    assert caught.value.findings[0].expected == "24 bytes of free memory"


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_closing_twice_is_harmless_and_nothing_is_left_open(path: Path) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    source: Source = open_source(path)
    source.close()
    source.close()
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(SourceError):
        open_source(path)
    assert open_files() == before
