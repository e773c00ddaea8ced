"""Load a canonical directory once, by one loader: ``python -m benchmarks.load_once --help``.

Answers with one line of JSON. Imports, and the making of a CUDA context, come before the clock
starts: ``load_seconds`` is what a program that already runs would wait for.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import inspect
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

FILE = "model.safetensors"
_WATCH_SECONDS = 0.0005

Tensors: TypeAlias = "Mapping[str, Tensor]"
Load: TypeAlias = Callable[[Path, str], Tensors]


@dataclass(frozen=True)
class Loader:
    """A way to load: what it is, the package it is in, and what imports it and returns it."""

    what: str
    package: str
    make: Callable[[], Load]
    devices: tuple[str, ...] = ("cpu", "cuda")
    required: bool = False


def _ours(**arguments: Any) -> Callable[[], Load]:
    def make() -> Load:
        from converter.runtime import load_tensors

        lacking = arguments.keys() - inspect.signature(load_tensors).parameters.keys()
        if lacking:
            raise SystemExit(f"load_tensors takes no {', '.join(sorted(lacking))}")
        load: Callable[..., Tensors] = load_tensors
        return lambda directory, device: load(directory, device=device, **arguments)

    return make


def _load_file() -> Load:
    from safetensors.torch import load_file

    return lambda directory, device: load_file(directory / FILE, device=device)


def _fastsafetensors() -> Load:
    library = importlib.import_module("fastsafetensors")

    def load(directory: Path, device: str) -> Tensors:
        loader = library.SafeTensorsFileLoader(None, device, nogds=True)
        loader.add_filenames({0: [str(directory / FILE)]})
        files = loader.copy_files_to_device()
        # Its tensors end with it; what holds them must hold it.
        return _Held({name: files.get_tensor(name) for name in loader.get_keys()}, (loader, files))

    return load


class _Held(dict[str, "Tensor"]):
    """Tensors, and what must live as long as they do."""

    def __init__(self, tensors: Tensors, owners: object) -> None:
        super().__init__(tensors)
        self.owners = owners


def _runai() -> Load:
    library = importlib.import_module("runai_model_streamer")

    def load(directory: Path, device: str) -> Tensors:
        with library.SafetensorsStreamer() as streamer:
            streamer.stream_file(str(directory / FILE), device=device)
            return dict(streamer.get_tensors())

    return load


LOADERS = {
    "ours": Loader('load_tensors, check="header"', "torch", _ours(check="header"), required=True),
    "ours-full": Loader(
        'load_tensors, check="full": the sha256 of every byte',
        "torch",
        _ours(check="full"),
        required=True,
    ),
    "ours-mapped": Loader(
        'load_tensors, mapped, check="header"',
        "torch",
        _ours(check="header", mapped=True),
        ("cpu",),
    ),
    "load_file": Loader(
        "load_file of safetensors VERSION", "safetensors", _load_file, required=True
    ),
    "fastsafetensors": Loader(
        "fastsafetensors VERSION, without GDS", "fastsafetensors", _fastsafetensors
    ),
    "runai": Loader("runai-model-streamer VERSION", "runai-model-streamer", _runai),
}


def load_once(loader: Loader, directory: Path, device: str) -> dict[str, float]:
    """Load, touch every byte, let go, and load once more; return what each took."""
    begun = time.perf_counter()
    load = loader.make()
    warm_up(device)
    ready = time.perf_counter()
    tensors = load(directory, numbered(device))
    synchronize(device)
    loaded = time.perf_counter()
    touch(tensors, device)
    touched = time.perf_counter()
    data_bytes = sum(tensor.nbytes for tensor in tensors.values())
    del tensors
    gc.collect()
    again_begun = time.perf_counter()
    kept = load(directory, numbered(device))
    synchronize(device)
    again = time.perf_counter() - again_begun
    del kept
    return {
        "ready_seconds": ready - begun,
        "load_seconds": loaded - ready,
        "touched_seconds": touched - ready,
        "again_seconds": again,
        "data_bytes": data_bytes,
        "load_bytes_per_second": data_bytes / (loaded - ready),
        "again_bytes_per_second": data_bytes / again,
    }


def numbered(device: str) -> str:
    """Return a device as every loader understands it."""
    return "cuda:0" if device == "cuda" else device


def warm_up(device: str) -> None:
    """Make the context of a device, its threads, and the first of all that is made once."""
    import torch

    torch.ones(1 << 20).sum()
    if device == "cuda":
        torch.ones(1).pin_memory().to(device).sum()
    synchronize(device)


def synchronize(device: str) -> None:
    """Wait for all that was asked of the device."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def touch(tensors: Tensors, device: str) -> None:
    """Read every byte once: what is mapped may not be there until then."""
    for tensor in tensors.values():
        tensor.sum()
    synchronize(device)


def prove(tensors: Tensors, directory: Path) -> int:
    """Compare every tensor with the manifest; return how many there are. Raises SystemExit."""
    import torch

    records = json.loads((directory / "manifest.json").read_text("utf-8"))["tensors"]
    if tensors.keys() != records.keys():
        raise SystemExit("the names are not those of the manifest")
    for name, tensor in tensors.items():
        data = tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data
        same_shape = list(tensor.shape) == records[name]["shape"]
        if not same_shape or hashlib.sha256(data).hexdigest() != records[name]["sha256"]:
            raise SystemExit(f"{name} is not what the manifest says")
    return len(tensors)


@contextmanager
def watched(used: Callable[[], int]) -> Iterator[list[int]]:
    """Sample ``used()`` on a thread while the block runs; the list holds first and peak at last."""
    seen = [used(), 0]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_WATCH_SECONDS):
            seen[1] = max(seen[1], used())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
        seen[1] = max(seen[1], used())


def used_bytes(device: str) -> int:
    """Return the device memory in use, by whomever; of the CPU, none."""
    if device != "cuda":
        return 0
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def watch(loader: Loader, directory: Path, device: str) -> dict[str, float]:
    """Load under watch and prove the tensors; return the peak of device memory beyond before."""
    import torch

    load = loader.make()
    warm_up(device)
    with watched(lambda: used_bytes(device)) as seen:
        tensors = load(directory, numbered(device))
        synchronize(device)
    reserved = torch.cuda.max_memory_reserved() if device == "cuda" else 0
    count = prove(tensors, directory)
    return {
        "tensors": count,
        "peak_device_bytes": seen[1] - seen[0],
        "torch_reserved_bytes": reserved,
    }


def main() -> None:
    """Do what the command line says, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loader", choices=LOADERS)
    parser.add_argument("directory", type=Path)
    parser.add_argument("device", choices=("cpu", "cuda"))
    parser.add_argument("--prove", action="store_true", help="no timing: memory, and every digest")
    chosen = parser.parse_args()
    work = watch if chosen.prove else load_once
    print(json.dumps(work(LOADERS[chosen.loader], chosen.directory, chosen.device)))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
