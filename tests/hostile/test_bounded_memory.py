"""What a file of a stranger may cost: a process that may not grow by more than a limit reads it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from crafted_files import container

from converter.canonical import MAX_HEADER_BYTES
from converter.header import MAX_HEADER_MARKS
from converter.strict_json import MAX_MARKS, MAX_WIDE_BYTES

GROWTH_BYTES = 1 << 30
CHILD = """
import resource, sys
from pathlib import Path
from converter import api, report
from converter.cli import main
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main(sys.argv[2:])
"""
EMPTY = '"dtype":"U8","shape":[0],"data_offsets":[0,0]'


def run(
    *command: str | Path, growth_bytes: int = GROWTH_BYTES
) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process that may grow by so much."""
    program = [sys.executable, "-c", CHILD, str(growth_bytes)]
    return subprocess.run(
        [*program, *map(str, command)], capture_output=True, text=True, timeout=120
    )


def inspected(path: Path, growth_bytes: int = GROWTH_BYTES) -> "subprocess.CompletedProcess[str]":
    """Inspect a checkpoint."""
    return run("inspect", path, growth_bytes=growth_bytes)


def metadata(*members: str) -> bytes:
    return f'{{"__metadata__":{{{",".join(members)}}}}}'.encode()


def tensors(count: int, name: Callable[[int], str]) -> bytes:
    entries = (f'"{name(number)}":{{{EMPTY}}}' for number in range(count))
    return f"{{{','.join(entries)}}}".encode()


# Each is just below every limit that there is, or just above one.
PAIRS = MAX_HEADER_MARKS - 10
TAKEN: dict[str, Callable[[], bytes]] = {
    "as many tensors as may be": lambda: tensors(MAX_HEADER_MARKS // 7 - 1, "t{:x}".format),
    "one text and many": lambda: metadata(
        f'"long":"{"x" * 70_000_000}"', *(f'"{n:x}":""' for n in range(PAIRS))
    ),
    "characters of four bytes": lambda: metadata(f'"\U0001f600":"{"x" * (MAX_WIDE_BYTES - 100)}"'),
}
REFUSED: dict[str, Callable[[], bytes]] = {
    "lists in lists": lambda: b'{"a":[' + b",".join([b"[" * 700 + b"]" * 700] * 2900) + b"]}",
    "objects in objects": lambda: (
        b'{"a":[' + b",".join([b'{"":' * 400 + b"1" + b"}" * 400] * 5000) + b"]}"
    ),
    "numbers": lambda: b'{"a":[' + b"1," * (MAX_HEADER_MARKS - 10) + b"1]}",
    "too many numbers": lambda: b'{"a":[' + b"1," * 49_000_000 + b"1]}",
    "a number of all that may be": lambda: b'{"a":' + b"1" * (MAX_HEADER_BYTES - 10) + b"}",
    "names of a megabyte": lambda: tensors(95, lambda n: f"{n}" * 500_000),
    "escapes for characters": lambda: metadata('"a":"' + "\\ud83d\\ude00" * 8_000_000 + '"'),
    "characters of four bytes, too many": lambda: metadata(
        f'"\U0001f600":"{"x" * (MAX_HEADER_BYTES - 100)}"'
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory")
@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN)
def test_a_file_just_below_every_limit_is_read_in_bounded_memory(
    case: Callable[[], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "stuffed.safetensors"
    path.write_bytes(container(case()))
    done = run("plan", "--model", "dit", path)
    assert done.returncode == 5, done.stderr
    assert "none of the 239 tensors" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory")
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_file_beyond_a_limit_is_refused_in_bounded_memory(
    case: Callable[[], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "stuffed.safetensors"
    path.write_bytes(container(case()))
    done = inspected(path)
    assert done.returncode == 4, done.stderr
    assert len(done.stderr) < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory")
def test_a_hundred_thousand_names_that_do_not_fold_are_listed_in_bounded_memory(
    tmp_path: Path,
) -> None:
    path = tmp_path / "stuffed.safetensors"
    names = "{0:x}.{0}.1.2.3.4.5.6.7.8.9.{0}".format
    path.write_bytes(container(tensors(100_000, names)))
    done = inspected(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) < 20_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory")
def test_the_limit_of_memory_is_one(tmp_path: Path) -> None:
    path = tmp_path / "stuffed.safetensors"
    path.write_bytes(container(TAKEN["as many tensors as may be"]()))
    assert "MemoryError" in inspected(path, 64 << 20).stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory")
def test_an_index_and_a_header_of_a_stranger_are_bounded_too(tmp_path: Path) -> None:
    text = b'{"weight_map":[' + b"[]," * MAX_MARKS + b"[]]}"
    for name in ("model.safetensors.index.json", "header.json"):
        (tmp_path / name).write_bytes(text)
        done = inspected(tmp_path / name)
        assert done.returncode == 4
        assert "stuffed" in done.stderr
