"""What the hardware gives: ``python -m benchmarks.roofline DEVICE FILE ``.

Copies of pinned memory to the device (of memory to memory on a CPU), sha256 on all cores, and
reads of a file that lies in the system's cache, each in bytes per second, as one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from converter.cores import available_cores

COPY_BYTES = 64 << 20
CHUNK_BYTES = 4 << 20
COPIES = 16
PASSES = 4


def link_bytes_per_second(device: str) -> float:
    """Return the best of some passes of copies between two buffers and the device, in turns."""
    pinned = device == "cuda"
    sources = [torch.ones(COPY_BYTES, dtype=torch.uint8, pin_memory=pinned) for _ in range(2)]
    targets = [torch.empty(COPY_BYTES, dtype=torch.uint8, device=device) for _ in range(2)]
    best = 0.0
    for number in range(PASSES + 1):
        _wait(device)
        begun = time.perf_counter()
        for turn in range(COPIES):
            targets[turn % 2].copy_(sources[turn % 2], non_blocking=True)
        _wait(device)
        rate = COPIES * COPY_BYTES / (time.perf_counter() - begun)
        best = max(best, rate) if number else 0.0  # the first pass only warms up
    return best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def sha256_bytes_per_second(cores: int, seconds: float) -> float:
    """Return what all cores hash together, each a buffer of its own, for some seconds."""
    end = time.perf_counter() + seconds

    def work() -> int:
        buffer, hashed = bytearray(CHUNK_BYTES), 0
        while time.perf_counter() < end:
            hashlib.sha256(buffer).digest()
            hashed += CHUNK_BYTES
        return hashed

    return _rate(cores, work)


def read_bytes_per_second(path: Path, threads: int) -> float:
    """Return how fast threads read a file together, each its own stretch of it."""
    share = -(-path.stat().st_size // threads)
    descriptor = os.open(path, os.O_RDONLY)
    starts = iter(range(0, share * threads, share))

    def work() -> int:
        begin = next(starts)
        buffer, count = bytearray(CHUNK_BYTES), 0
        while count < share:
            window = memoryview(buffer)[: share - count]
            got = os.preadv(descriptor, [window], begin + count)
            if not got:
                break
            count += got
        return count

    try:
        return _rate(threads, work)
    finally:
        os.close(descriptor)


def _rate(threads: int, work: Callable[[], int]) -> float:
    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        done = sum(future.result() for future in [pool.submit(work) for _ in range(threads)])
    return done / (time.perf_counter() - begun)


def describe(device: str) -> dict[str, str]:
    """Return what the device is."""
    if device != "cuda":
        return {"device": "cpu"}
    return {"device": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", choices=("cpu", "cuda"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to hash")
    parser.add_argument("--describe", action="store_true", help="only say what the device is")
    chosen = parser.parse_args()
    if chosen.describe:
        print(json.dumps(describe(chosen.device)))
        return
    cores = available_cores()
    figures = {
        "link_bytes_per_second": link_bytes_per_second(chosen.device),
        "sha256_bytes_per_second": sha256_bytes_per_second(cores, chosen.seconds),
        "read_bytes_per_second": read_bytes_per_second(chosen.file, min(cores, 8)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
