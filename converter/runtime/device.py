"""The device that tensors are asked on: is it there, has it room, and the way into its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor

from converter.errors import ExecutionError, UsageError
from converter.runtime.read import CHUNK_BYTES, Wait, Window, in_place, ring

# Buffers beyond one for each reader: those whose copy to the device is under way.
_SPARE_BUFFERS = 4


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device, with its number if it is a GPU.

    Raises UsageError for a device that is neither the CPU nor a CUDA device, and ExecutionError
    for a CUDA device that cannot be used.
    """
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise UsageError(
            f"no such device: {device!r}", expected="'cpu', 'cuda' or 'cuda:N'"
        ) from error
    if asked.type not in ("cpu", "cuda"):
        raise UsageError(
            f"cannot load onto {str(asked)!r}",
            expected="'cpu', 'cuda' or 'cuda:N'",
            hint="load onto 'cpu' and move the tensors from there",
        )
    return torch.device("cpu") if asked.type == "cpu" else _resolve_gpu(asked)


def _resolve_gpu(asked: torch.device) -> torch.device:
    if not torch.cuda.is_available():
        built = torch.version.cuda
        raise _no_gpu(
            asked,
            f"torch {torch.__version__}, "
            + (f"built for CUDA {built}, finds no GPU" if built else "built without CUDA"),
        )
    try:
        current, count = torch.cuda.current_device(), torch.cuda.device_count()
    except RuntimeError as error:
        raise _no_gpu(asked, str(error).splitlines()[0]) from error
    number = cast("int | None", asked.index)  # None for a plain "cuda", which torch's stubs omit
    if number is None:
        number = current
    if number >= count:
        raise _no_gpu(asked, f"GPUs 0 to {count - 1}")
    return torch.device("cuda", number)


def _no_gpu(asked: torch.device, got: str) -> ExecutionError:
    return ExecutionError(
        f"no usable GPU for device {str(asked)!r}",
        code="device",
        got=got,
        hint="check the driver (nvidia-smi) and the build of torch, or load onto 'cpu'",
    )


def allocate(device: torch.device, sizes: list[int]) -> list[Tensor]:
    """Return one uint8 tensor [size] on ``device`` for each size in bytes.

    Raises ExecutionError, with the figures, when the memory is not there.
    """
    needed = sum(sizes)
    try:
        free = _free_bytes(device)
        if free is not None and free < needed:
            raise _no_room(device, needed, f"{free:,} bytes free")
        return [torch.empty(size, dtype=torch.uint8, device=device) for size in sizes]
    except RuntimeError as error:
        raise _no_room(device, needed, str(error).splitlines()[0]) from error


def _free_bytes(device: torch.device) -> int | None:
    """Return what a GPU has free, with what torch keeps there unused; None for the CPU."""
    if device.type == "cpu":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _no_room(device: torch.device, needed: int, got: str) -> ExecutionError:
    return ExecutionError(
        f"not enough memory on device {str(device)!r} for the weights",
        code="memory",
        expected=f"{needed:,} bytes",
        got=got,
        hint="free memory there, or load onto another device",
    )


@contextmanager
def windows(device: torch.device, *, readers: int, data_bytes: int) -> Iterator[Window]:
    """Yield the window through which ``readers`` threads fill memory of ``device``.

    All bytes have arrived when this ends, however it ends.
    """
    if device.type == "cpu":
        yield in_place
        return
    count = min(readers + _SPARE_BUFFERS, -(-data_bytes // CHUNK_BYTES))
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # The memory may have been used until now by work that is still queued on the current stream.
    stream.wait_stream(torch.cuda.current_stream(device))

    def send(memory: Tensor, filled: Tensor) -> Wait:
        with torch.cuda.stream(stream):
            memory.copy_(filled, non_blocking=True)
            copied: Wait = stream.record_event().synchronize
        return copied

    with ring(_page_locked, max(count, 1), send) as window:
        yield window


def _page_locked() -> Tensor:
    """Return a buffer of host memory that a GPU copies from while the CPU does something else."""
    try:
        return torch.empty(CHUNK_BYTES, dtype=torch.uint8, device="cpu", pin_memory=True)
    except RuntimeError as error:
        raise ExecutionError(
            "no page-locked memory on the host for the way to the device",
            code="memory",
            expected=f"{CHUNK_BYTES:,} bytes",
            got=str(error).splitlines()[0],
            hint="free memory of the host, or raise what the process may lock (ulimit -l)",
        ) from error
