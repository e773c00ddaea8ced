"""One of two ranks that load together: ``one_of_two_ranks.py RANK FOLDER``.

Loads the directories of FOLDER in several ways, and writes to ``rank-RANK.json`` there what came
of each: ``"equal"``, which tensors differ, or the text of the error.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from ranks_fixture import DIMS, RANKS, tensors
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load as load_checkpoint
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, empty

from converter.errors import ConverterError
from converter.runtime import Check, load_slices, share
from converter.runtime.ranks import open_reader


def placed(name: str, tensor: Tensor, mesh: DeviceMesh) -> Tensor:
    """Return a tensor to be filled, where this rank is to hold it."""
    if name not in DIMS:
        return torch.full_like(tensor, 1)
    dim = DIMS[name]
    placement = Replicate() if dim is None else Shard(dim)
    made: Tensor = empty(
        *tensor.shape, dtype=tensor.dtype, device_mesh=mesh, placements=[placement]
    )
    return made


def same(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return ``"equal"``, or the names of what differs in its bytes."""
    wrong = [name for name in expected if not same_bytes(got[name], expected[name])]
    return ", ".join(wrong) or "equal"


def same_bytes(got: Tensor, expected: Tensor) -> bool:
    if isinstance(got, DTensor):
        got = got.full_tensor()
    return (got.dtype, got.shape) == (expected.dtype, expected.shape) and torch.equal(
        got.reshape(-1).view(torch.uint8), expected.reshape(-1).view(torch.uint8)
    )


def by_torch(folder: Path, mesh: DeviceMesh) -> str:
    """Load with torch's own reader, which knows nothing of this package."""
    expected = tensors()
    state = {name: placed(name, tensor, mesh) for name, tensor in expected.items()}
    reader = HuggingFaceStorageReader(str(folder / "toy"))
    load_checkpoint(state, storage_reader=reader)
    return same(state, expected)


def by_reader(path: Path, mesh: DeviceMesh, check: Check) -> str:
    """Load with the reader of this package, an alias too."""
    expected = tensors()
    expected["tied"] = expected["rows"]
    state = {name: placed(name, expected[name], mesh) for name in tensors()}
    state["tied"] = torch.zeros(6, 5)
    with open_reader(path, check=check) as reader:
        load_checkpoint(state, storage_reader=reader)
    return same(state, expected)


def as_other_dtype(folder: Path, mesh: DeviceMesh) -> str:
    state = {"rows": empty(6, 5, dtype=torch.float16, device_mesh=mesh, placements=[Shard(0)])}
    with open_reader(folder / "toy") as reader:
        load_checkpoint(state, storage_reader=reader)
    return "loaded"


def of_another_directory(folder: Path) -> str:
    """Ask a reader for another directory than it is of."""
    with open_reader(folder / "toy") as reader:
        reader.reset()
        reader.reset(folder / "toy")
        reader.reset(folder / "other")
    return "reset"


def by_slices(folder: Path, rank: int, check: Check) -> str:
    """Load what a rank holds by slices, without torch's checkpoints."""

    def cut(name: str, shape: tuple[int, ...]) -> list[slice]:
        dim = DIMS.get(name)
        return [] if dim is None else [*[slice(None)] * dim, share(shape[dim], rank, RANKS)]

    expected = {name: tensor[tuple(cut(name, tensor.shape))] for name, tensor in tensors().items()}
    return same(load_slices(folder / "toy", cut, check=check), expected)


def outcome(load: Callable[[], str]) -> str:
    """Return what a load says, or what its error says, that of any rank included."""
    try:
        return load()
    except (ConverterError, CheckpointException) as error:
        return f"{type(error).__name__}: {error}"


def main(rank: int, folder: Path) -> None:
    """Load in every way, each with a barrier after it."""
    warnings.simplefilter("error")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=120),
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    toy, flipped = folder / "toy", folder / "flipped"
    loads: dict[str, Callable[[], str]] = {
        "torch": lambda: by_torch(folder, mesh),
        "reader, header": lambda: by_reader(toy, mesh, "header"),
        "reader, full": lambda: by_reader(toy, mesh, "full"),
        "slices, header": lambda: by_slices(folder, rank, "header"),
        "slices, full": lambda: by_slices(folder, rank, "full"),
        "flipped, header": lambda: by_reader(flipped, mesh, "header"),
        "flipped, full": lambda: by_reader(flipped, mesh, "full"),
        "two directories": lambda: by_reader((toy, folder / "other")[rank], mesh, "header"),
        "another directory": lambda: of_another_directory(folder),
        "dtype": lambda: as_other_dtype(folder, mesh),
    }
    outcomes = {name: outcome(load) for name, load in loads.items()}
    (folder / f"rank-{rank}.json").write_text(json.dumps(outcomes))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
