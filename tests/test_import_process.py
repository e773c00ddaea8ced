"""The process that reads pickles: what it gets, what it may do, and that nobody believes it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pickles import ask_here, contents, import_it, save

from converter import pickle_child, pickle_import, pickle_process
from converter.errors import ExecutionError, SourceError


def test_the_process_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/lib")
    environment = pickle_process.environment()
    assert "secret" not in environment.values()
    assert "PYTHONPATH" not in environment
    assert environment["LD_LIBRARY_PATH"] == "/lib"


CHILD = """
import json, os, socket, sys
from converter import pickle_child
from converter.pickle_child import Request
sandbox = {"network": False, "limits": []}
def read(file):
    tried = {}
    for name, attempt in {
        "open": lambda: open("/etc/hostname"),
        "socket": lambda: socket.socket(),
        "memory": lambda: bytearray(1 << 33),
        "fork": lambda: os.fork() or os._exit(0),
        "write": lambda: os.write(1, b"x" * 10),
    }.items():
        try:
            attempt()
            tried[name] = "done"
        except (OSError, MemoryError) as error:
            tried[name] = type(error).__name__
    return {"tried": tried, "interfaces": sorted(
        line.split(":")[0].strip() for line in net if ":" in line and "|" not in line
    )}
net = []
pickle_child.reader = lambda request: net.extend(open("/proc/net/dev")) or read
told = pickle_child._read_confined(Request(cpu_seconds=60, memory_bytes=1 << 28), sandbox)
os.write(2, json.dumps({**told, "sandbox": sandbox}).encode())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms limit less")
def test_the_process_can_open_nothing_more_when_it_reads(tmp_path: Path) -> None:
    with (tmp_path / "written").open("wb") as out, open(os.devnull, "rb") as nothing:
        done = subprocess.run(
            [sys.executable, "-c", CHILD], stdin=nothing, stdout=out, stderr=subprocess.PIPE
        )
    told = json.loads(done.stderr)
    assert told["tried"]["open"] == "OSError"
    assert told["tried"]["socket"] == "OSError"
    assert told["tried"]["memory"] == "MemoryError"
    assert {"cpu", "files", "memory", "written"} <= {*told["sandbox"]["limits"]}
    if told["sandbox"]["network"]:
        assert told["interfaces"] == ["lo"]


@pytest.mark.parametrize(
    ("code", "got"),
    [
        ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL"),
        ("import os; os._exit(3)", "exit code 3"),
        ("import time; time.sleep(60)", "more than 0.5 seconds"),
        ("import sys; sys.stdout.write('x' * 100)", None),
        ("import sys; sys.stdout.write('{}')", None),
        ("import sys\nwhile True: sys.stdout.write('[' * 1000)", None),
    ],
)
def test_a_process_that_does_not_answer_is_no_disaster(
    code: str, got: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_process, "_command", lambda request: [sys.executable, "-c", code])
    monkeypatch.setattr(pickle_process, "START_SECONDS", 0.5 if got and "0.5" in got else 60)
    monkeypatch.setattr(pickle_process, "MAX_ANSWER_BYTES", 10_000)
    monkeypatch.setattr(pickle_import, "_CPU_SECONDS", 0)
    monkeypatch.setattr(pickle_import, "_PICKLE_BYTES_PER_SECOND", float("inf"))
    path = save(tmp_path / "a.pth", {"a": torch.ones(3)})
    with pytest.raises(SourceError) as caught:
        import_it(path)
    (finding,) = caught.value.findings
    assert finding.code in ("pickle-process", "json")
    assert got is None or finding.got == got
    assert [*tmp_path.iterdir()] == [path]


LIE = {
    "path": ["a"],
    "dtype": "float32",
    "shape": [3],
    "strides": [1],
    "offset": 0,
    "storage": 1,
    "storage_bytes": 12,
}


@pytest.mark.parametrize(
    "lie",
    [
        {"offset": 1},
        {"offset": 1 << 62},
        {"offset": -1},
        {"shape": [1 << 62]},
        {"shape": [4], "storage_bytes": 16},
        {"shape": [3, 3], "strides": [0, 1]},
        {"shape": [3, 3]},
        {"strides": [-1]},
        {"strides": []},
        {"storage": 10**6},
        {"dtype": "float64"},
        {"dtype": "qint8"},
        {"path": ["\x1b[2J"]},
        {"path": []},
        {"path": "a"},
        {"storage_bytes": True},
        {"more": 1},
    ],
    ids=str,
)
def test_what_the_process_says_is_held_against_the_file(
    lie: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.pth", {"a": torch.ones(3)})

    def answer(change: Mapping[str, object]) -> None:
        def ask(file: Any, request: Any, *, where: str) -> pickle_process.Answer:
            file.seek(0)
            storage = _first_storage(file.read())
            row = {**LIE, "storage": storage, **change}
            told = {
                "sandbox": {"network": True, "limits": []},
                "tensors": [row],
                "others": [],
            }
            return pickle_process.read_answer(json.dumps(told).encode(), where=where)

        monkeypatch.setattr(pickle_import, "ask", ask)

    def _first_storage(data: bytes) -> int:
        name = b"archive/data/0"
        return data.index(name) + len(name)

    answer(lie)
    with pytest.raises(SourceError):
        import_it(path)
    assert [*tmp_path.iterdir()] == [path]
    answer({})
    (taken,) = contents(import_it(path).out).items()
    assert taken == ("a", ("F32", (3,), torch.ones(3).numpy().tobytes()))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the platform has no full disk")
def test_a_full_disk_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_import, "ask", ask_here)
    path = save(tmp_path / "a.pth", {"a": torch.ones(3)}, is_archive=False)

    def on_a_full_disk(file: str, mode: str, **options: Any) -> Any:
        return open("/dev/full" if mode == "xb" else file, mode.replace("x", "w"), **options)

    monkeypatch.setattr(pickle_child, "open", on_a_full_disk, raising=False)
    with pytest.raises(ExecutionError) as caught:
        import_it(path)
    (finding,) = caught.value.findings
    assert finding.code == "io"
    assert "No space left" in finding.what
    assert [*tmp_path.iterdir()] == [path]


def test_an_old_torch_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_import, "ask", ask_here)
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    path = save(tmp_path / "a.pth", {"a": torch.ones(3)})
    with pytest.raises(ExecutionError, match=r"expected: +2\.10 or later"):
        import_it(path)
