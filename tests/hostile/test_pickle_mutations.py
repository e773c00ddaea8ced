"""Changed at random, a checkpoint is refused by our own errors, or taken as torch would take it."""

import io
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from pickle_files import parts_of, with_pickle
from pickles import import_it, saved
from pickles import in_this_process as in_this_process
from safetensors.torch import load_file

from converter.errors import SourceError

ROUNDS = 250
CHECKPOINT: dict[str, Any] = {
    "net": {
        "a": torch.arange(6.0).reshape(2, 3),
        "t": torch.arange(6.0).reshape(2, 3).t(),
        "b": torch.nn.Parameter(torch.ones(2, dtype=torch.float16)),
    },
    "epoch": 3,
}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change, insert, remove or repeat a few bytes."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        at = chance.randrange(len(changed))
        match chance.randrange(5):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at] = chance.choice([0, 1, 0x7F, 0xFF, *b"(.cR}]tKJ\x85Q"])
            case 2:
                del changed[at : at + chance.randrange(1, 9)]
            case 3:
                changed[at:at] = changed[at : at + chance.randrange(1, 9)]
            case 4:
                begin = chance.randrange(len(changed))
                changed[at : at + 8] = changed[begin : begin + 8]
        if not changed:
            break
    return bytes(changed)


def archives(chance: random.Random) -> Iterator[bytes]:
    whole = saved(CHECKPOINT)
    while True:
        yield mutated(whole, chance)


def pickles_in_archives(chance: random.Random) -> Iterator[bytes]:
    pickle = parts_of(saved(CHECKPOINT))["archive/data.pkl"]
    while True:
        yield with_pickle(mutated(pickle, chance), CHECKPOINT)


def streams(chance: random.Random) -> Iterator[bytes]:
    whole = saved(CHECKPOINT, is_archive=False)
    while True:
        yield mutated(whole, chance)


def as_torch_reads(path: Path) -> dict[str, Any] | None:
    """Return what torch makes of a file; None where it says that a size is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = io.BytesIO(path.read_bytes())
        try:
            loaded: Any = torch.load(data, "cpu", weights_only=True)  # noqa: TID251
        except RuntimeError:
            return None
    net: dict[str, Any] = loaded["net"]
    return net


def as_saved(path: Path) -> dict[str, Any]:
    """Return what was saved: the sums in an archive prove that nothing else was read."""
    net: dict[str, Any] = CHECKPOINT["net"]
    return net


def is_taken(path: Path, expect: Callable[[Path], dict[str, Any] | None]) -> bool:
    """Import a file, and return whether it was taken; then it holds what is expected of it."""
    out = path.with_suffix(".safetensors")
    with suppress(SourceError):
        import_it(path, "net")
    if not out.exists():
        return False
    ours, theirs = load_file(out), expect(path)
    out.unlink()
    assert theirs is None or ours.keys() == theirs.keys()
    for name, tensor in (theirs or {}).items():
        assert tensor.dtype == ours[name].dtype
        plain = tensor.detach().clone(memory_format=torch.contiguous_format)
        assert bytes(plain.untyped_storage()) == bytes(ours[name].clone().untyped_storage())
    return True


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("files", "expect"),
    [(archives, as_saved), (pickles_in_archives, as_torch_reads), (streams, as_torch_reads)],
)
def test_changed_checkpoints_are_refused_or_taken_as_torch_takes_them(
    files: Any, expect: Callable[[Path], dict[str, Any] | None], tmp_path: Path
) -> None:
    changed = files(random.Random(20))
    path = tmp_path / "a.pth"
    taken = 0
    for _ in range(ROUNDS):
        path.write_bytes(next(changed))
        taken += is_taken(path, expect)
        assert [*tmp_path.iterdir()] == [path]
    assert taken < ROUNDS // 2
    path.write_bytes(saved(CHECKPOINT))
    assert is_taken(path, as_torch_reads)
    path.write_bytes(saved(CHECKPOINT))
    assert is_taken(path, as_saved)


def test_processes_meet_a_few_of_them_too(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    changed = pickles_in_archives(random.Random(3))
    for _ in range(2):
        path.write_bytes(next(changed))
        is_taken(path, as_torch_reads)
    assert [*tmp_path.iterdir()] == [path]
