import errno
import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from converter import digest
from converter.canonical import Placement, arrange, encode_header
from converter.errors import ExecutionError
from converter.spec import TensorSpec
from converter.write import WeightsFile, io_errors, write_file
from converter.write_blocks import BlockMemory

VALUES: dict[str, NDArray[Any]] = {
    "wide": np.arange(4096, dtype=np.float32).reshape(64, 64),
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 2), np.float16),
    "odd": np.arange(7, dtype=np.uint8),
}
DTYPES = {"wide": "F32", "scalar": "I64", "empty": "F16", "odd": "U8"}
PLACEMENTS = arrange((name, TensorSpec(DTYPES[name], VALUES[name].shape)) for name in VALUES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@contextmanager
def open_file(
    path: Path, placements: Sequence[Placement] = PLACEMENTS, *, window: int = 2
) -> Iterator[WeightsFile]:
    """A file of blocks of a page each, few of which are held in memory."""
    with (
        BlockMemory(window=window, block_bytes=4096) as memory,
        WeightsFile(path, placements, memory) as file,
    ):
        yield file


def write_all(file: WeightsFile) -> None:
    for tensor in PLACEMENTS:
        file.write(tensor.begin, VALUES[tensor.name].tobytes())


def write_all_to(path: Path) -> str:
    with open_file(path) as file:
        write_all(file)
        return file.sha256()


def expected() -> bytes:
    data = b"".join(VALUES[tensor.name].tobytes() for tensor in PLACEMENTS)
    return encode_header(PLACEMENTS) + data


def test_a_file_has_its_full_size_and_its_header_before_any_tensor(path: Path) -> None:
    with open_file(path) as file:
        header = encode_header(PLACEMENTS)
        assert path.stat().st_size == file.size_bytes == len(expected())
        assert path.read_bytes()[: len(header)] == header
        assert file.data_start == len(header)
        assert file.header_sha256 == hashlib.sha256(header).hexdigest()
        write_all(file)


@pytest.mark.parametrize("seed", range(5))
def test_the_bytes_are_the_same_in_any_order_from_any_thread(path: Path, seed: int) -> None:
    pieces: list[tuple[int, memoryview]] = []
    for tensor in PLACEMENTS:
        data = VALUES[tensor.name].tobytes()
        for begin in range(0, len(data), 1000):
            pieces.append((tensor.begin + begin, memoryview(data)[begin : begin + 1000]))
    random.Random(seed).shuffle(pieces)
    with open_file(path, window=3) as file, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda piece: file.write(*piece), pieces))
        assert file.sha256() == hashlib.sha256(expected()).hexdigest()
    assert path.read_bytes() == expected()
    loaded = safetensors.numpy.load_file(path)
    assert loaded.keys() == VALUES.keys()
    for name, value in VALUES.items():
        np.testing.assert_array_equal(loaded[name], value)


def test_a_file_without_tensors_is_a_header(path: Path) -> None:
    with open_file(path, ()):
        pass
    assert safetensors.numpy.load_file(path) == {}


def test_bytes_that_were_never_written_are_a_defect(path: Path) -> None:
    def write_some(read: bool) -> None:
        with open_file(path) as file:
            for tensor in PLACEMENTS:
                if tensor.name != "odd":
                    file.write(tensor.begin, VALUES[tensor.name].tobytes())
            if read:
                file.sha256()

    for read in (False, True):
        with pytest.raises(RuntimeError, match="7 bytes were not written"):
            write_some(read)
        path.unlink()


@pytest.mark.parametrize(("begin", "size"), [(-1, 1), (0, 16400), (16399, 1), (1 << 40, 1)])
def test_bytes_outside_of_the_data_are_a_defect(path: Path, begin: int, size: int) -> None:
    assert PLACEMENTS[-1].end == 16399
    with open_file(path) as file:
        with pytest.raises(ValueError, match="lie outside"):
            file.write(begin, bytes(size))
        write_all(file)
    assert path.read_bytes() == expected()


def test_a_file_that_exists_is_never_written_into(path: Path) -> None:
    path.write_bytes(b"precious")
    with pytest.raises(ExecutionError, match="File exists"):
        write_all_to(path)
    with pytest.raises(ExecutionError, match="File exists"):
        write_file(path, b"other")
    assert path.read_bytes() == b"precious"


def test_a_link_is_never_written_through(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExecutionError):
        write_file(path, b"other")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, None])
def test_space_that_cannot_be_reserved_is_only_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    def refuse(*_: int) -> None:
        assert code is not None
        raise OSError(code, os.strerror(code))

    if code is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)  # as on macOS and Windows
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    with open_file(path) as file:
        assert path.stat().st_size == len(expected())
        write_all(file)
    assert path.read_bytes() == expected()


def test_a_full_disk_is_found_before_any_tensor_is_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with pytest.raises(ExecutionError) as caught, open_file(path):
        pass
    assert str(caught.value) == (
        f"{path}: cannot be written: No space left on device\n"
        "  hint:     free some space, or write to another disk"
    )


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some of your quota"),
        (errno.EROFS, "write elsewhere"),
        (errno.EACCES, "permission"),
        (errno.EFBIG, "--max-shard-size"),
        (errno.EBUSY, "mount point"),
        (errno.EIO, None),
    ],
)
def test_every_failure_of_the_system_says_where_why_and_what_to_do(
    tmp_path: Path, code: int, hint: str | None
) -> None:
    with pytest.raises(ExecutionError) as caught, io_errors(tmp_path):
        raise OSError(code, os.strerror(code))
    (finding,) = caught.value.findings
    assert finding.code == "io"
    assert finding.where == str(tmp_path)
    assert finding.what == f"cannot be written: {os.strerror(code)}"
    assert (finding.hint is None) if hint is None else (hint in str(finding.hint))


def test_a_failed_sync_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ExecutionError, match="Input/output error"):
        write_all_to(path)
    with pytest.raises(ExecutionError, match="Input/output error"):
        write_file(path.with_name("manifest.json"), b"{}")


def test_a_tensor_larger_than_one_write_arrives_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:1000], at))
    placements = (Placement("a", TensorSpec("U8", (5000,)), 0, 5000),)
    data = os.urandom(5000)
    with open_file(path, placements) as file:
        file.write(0, data)
    assert digest.sha256(path.read_bytes()) == digest.sha256(encode_header(placements) + data)
