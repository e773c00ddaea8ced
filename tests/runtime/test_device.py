from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from canonical_fixture import assert_same_bytes, every_dtype, flip, write_canonical
from torch import nn

from converter.canonical import WEIGHTS_NAME
from converter.cores import available_cores
from converter.errors import ExecutionError, MismatchError, UsageError
from converter.runtime import Check, load_into, load_model, load_tensors
from converter.runtime.device import resolve_device, windows
from converter.runtime.directory import opened


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch say that there is one GPU with 1000 bytes free and 200 cached."""
    figures = {
        "is_available": True,
        "current_device": 0,
        "device_count": 1,
        "mem_get_info": (1000, 2000),
        "memory_reserved": 500,
        "memory_allocated": 300,
    }
    for name, figure in figures.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, figure=figure: figure)


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("something was read")

    monkeypatch.setattr("converter.runtime.tensors.read_units", read)


@pytest.mark.usefixtures("no_reading")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str | torch.device
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for load in (load_tensors, load_model):
        with pytest.raises(ExecutionError, match="no usable GPU for device 'cuda"):
            load(tmp_path / "absent", device=device)
    with pytest.raises(ExecutionError, match=re.escape(torch.__version__)):
        load_into(nn.Linear(1, 1), tmp_path / "absent", device=device)


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_number_beyond_the_last_is_refused() -> None:
    with pytest.raises(ExecutionError, match="GPUs 0 to 0"):
        resolve_device("cuda:1")


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_without_number_is_the_current_one() -> None:
    assert resolve_device("cuda") == torch.device("cuda", 0)


def test_a_gpu_that_cannot_be_initialised_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> int:
        raise RuntimeError("CUDA driver initialization failed\nand so on")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", fail)
    with pytest.raises(ExecutionError, match="CUDA driver initialization failed"):
        resolve_device("cuda")


@pytest.mark.parametrize("device", ["meta", "xpu", "nonsense"])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(UsageError, match="'cpu', 'cuda' or 'cuda:N'"):
        resolve_device(device)


@pytest.mark.usefixtures("one_gpu", "no_reading")
def test_too_little_free_memory_is_refused_with_both_figures(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(301)})
    with pytest.raises(ExecutionError) as caught:
        load_tensors(path, device="cuda")
    (finding,) = caught.value.findings
    assert (finding.expected, finding.got) == ("1,204 bytes", "1,200 bytes free")


@pytest.mark.usefixtures("no_reading")
def test_memory_that_the_allocator_does_not_give_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(300)})
    monkeypatch.setattr("torch.empty", exhausted)
    with pytest.raises(ExecutionError, match=r"not enough memory(.|\n)*CUDA out of memory"):
        load_tensors(path)


def test_copies_to_a_gpu_run_on_a_side_stream_and_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []

    class Event:
        def synchronize(self) -> None:
            log.append("copy waited for")

    class Stream:
        def __init__(self, device: torch.device) -> None:
            assert device == torch.device("cuda", 0)

        def wait_stream(self, other: object) -> None:
            log.append("earlier work waited for")

        def record_event(self) -> Event:
            log.append("copy sent")
            return Event()

    empty = torch.empty
    monkeypatch.setattr("torch.empty", lambda *args, pin_memory, **keys: empty(*args, **keys))
    monkeypatch.setattr("torch.cuda.Stream", Stream)
    monkeypatch.setattr("torch.cuda.current_stream", lambda _: None)
    monkeypatch.setattr("torch.cuda.stream", nullcontext)
    memory = torch.zeros(4, dtype=torch.uint8)
    with windows(torch.device("cuda", 0), readers=2, data_bytes=4) as window:
        for content in (b"abcd", b"efgh"):
            with window(memory) as chunk:
                chunk[:] = content
        assert bytes(memory.tolist()) == b"efgh"
    sent_and_waited = ["copy sent", "copy waited for"]
    assert log == ["earlier work waited for", *sent_and_waited, *sent_and_waited]


class PretendGpu:
    """A GPU whose memory is the host's, and whose copies are late, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, queue: ThreadPoolExecutor) -> None:
        self.allocated: list[int] = []  # sizes in bytes, of its memory and of page-locked memory
        self.page_locked: list[int] = []
        self.copies: list[Future[object]] = []
        self.streams: list[str] = []  # that of each copy
        self._on = threading.local()
        self._queue = queue
        self._empty, self._copy = torch.empty, torch.Tensor.copy_
        gpu = torch.device("cuda", 0)
        monkeypatch.setattr("converter.runtime.tensors.resolve_device", lambda _: gpu)
        monkeypatch.setattr("converter.runtime.device._free_bytes", lambda _: 1 << 30)
        monkeypatch.setattr("torch.empty", self.empty)
        monkeypatch.setattr("torch.Tensor.copy_", lambda *given, **keys: self.copy(*given, **keys))
        monkeypatch.setattr("torch.cuda.Stream", lambda _: self)
        monkeypatch.setattr("torch.cuda.current_stream", lambda _: None)
        monkeypatch.setattr("torch.cuda.stream", self.on_side_stream)

    def empty(self, size: int, *, dtype: torch.dtype, device: Any, **keys: Any) -> torch.Tensor:
        sizes = self.page_locked if keys.pop("pin_memory", False) else self.allocated
        sizes.append(size)
        return self._empty(size, dtype=dtype, device="cpu", **keys)

    def copy(self, memory: torch.Tensor, filled: torch.Tensor, *, non_blocking: bool) -> None:
        def late() -> None:
            time.sleep(0.001)
            self._copy(memory, filled)

        assert non_blocking
        self.streams.append(getattr(self._on, "stream", "current"))
        self.copies.append(self._queue.submit(late))

    @contextmanager
    def on_side_stream(self, _: object) -> Iterator[None]:
        self._on.stream = "side"
        yield
        del self._on.stream

    def wait_stream(self, _: object) -> None:
        assert not self.copies

    def record_event(self) -> MagicMock:
        copies = tuple(self.copies)
        return MagicMock(synchronize=lambda: [copy.result() for copy in copies])


@pytest.mark.parametrize("check", ["header", "full"])
def test_a_load_takes_one_allocation_for_each_file_a_small_ring_and_a_side_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Check
) -> None:
    for module in ("device", "read"):
        monkeypatch.setattr(f"converter.runtime.{module}.CHUNK_BYTES", 256)
    tensors = every_dtype()
    names = list(tensors)
    path = write_canonical(tmp_path / "toy", tensors, shards=[names[:9], names[9:]])
    with opened(path) as canonical:
        sizes = [file.data_bytes for file in canonical.files]
    with ThreadPoolExecutor(1) as queue:
        gpu = PretendGpu(monkeypatch, queue)
        loaded = load_tensors(path, device="cuda", check=check)
        assert all(copy.done() for copy in gpu.copies)
    monkeypatch.undo()
    assert gpu.allocated == sizes
    assert len(gpu.copies) > 20
    assert set(gpu.streams) == {"side"}
    assert 0 < len(gpu.page_locked) <= available_cores() + 4
    assert set(gpu.page_locked) == {256}
    assert_same_bytes(loaded, tensors)


def test_memory_that_cannot_be_page_locked_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = torch.empty

    def refuse(*shape: int, pin_memory: bool = False, **keys: Any) -> torch.Tensor:
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory\nand so on")
        return empty(*shape, **{**keys, "device": "cpu"})

    path = write_canonical(tmp_path / "toy", {"a": torch.zeros(4)})
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr("converter.runtime.tensors.resolve_device", lambda _: gpu)
    monkeypatch.setattr("converter.runtime.device._free_bytes", lambda _: 1000)
    monkeypatch.setattr("torch.empty", refuse)
    monkeypatch.setattr("torch.cuda.Stream", MagicMock())
    monkeypatch.setattr("torch.cuda.current_stream", lambda _: None)
    with pytest.raises(ExecutionError, match=r"no page-locked memory(.|\n)*out of memory"):
        load_tensors(path, device="cuda")


@pytest.mark.cuda
@pytest.mark.parametrize("check", ["header", "full"])
def test_a_gpu_gets_the_same_bytes_as_the_cpu(tmp_path: Path, check: Check) -> None:
    tensors = every_dtype() | {"huge": torch.randn(12 << 20)}
    path = write_canonical(tmp_path / "toy", tensors)
    loaded = load_tensors(path, device="cuda", check=check)
    assert {tensor.device for tensor in loaded.values()} == {resolve_device("cuda")}
    assert_same_bytes(loaded, tensors)


@pytest.mark.cuda
def test_a_flipped_byte_is_found_on_the_way_to_a_gpu(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", {"a": torch.randn(1 << 20), "b": torch.randn(64)})
    flip(path / WEIGHTS_NAME, 4096)
    with pytest.raises(MismatchError) as caught:
        load_tensors(path, device="cuda", check="full")
    assert [finding.tensor for finding in caught.value.findings] == ["a"]


@pytest.mark.cuda
def test_a_gpu_holds_the_weights_and_little_else_during_a_load(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.randn(8 << 20) for i in range(4)}
    path = write_canonical(tmp_path / "toy", tensors, shards=[["t0", "t1"], ["t2", "t3"]])
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    loaded = load_tensors(path, device="cuda", check="full")
    weights = sum(tensor.nbytes for tensor in loaded.values())
    assert torch.cuda.max_memory_reserved() - before <= weights + (128 << 20)


@pytest.mark.cuda
def test_a_module_with_an_unsaved_buffer_ends_wholly_on_the_gpu(tmp_path: Path) -> None:
    module = nn.BatchNorm1d(4)
    module.register_buffer("ramp", torch.arange(4), persistent=False)
    path = write_canonical(tmp_path / "toy", module.state_dict())
    load_into(module, path, device="cuda")
    held = [*module.parameters(), *module.buffers()]
    assert {tensor.device.type for tensor in held} == {"cuda"}
