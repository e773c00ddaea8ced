"""Torch's restricted loader, and what it made of a pickle, as rows of names and figures.

It stands in the process that reads the pickle (see ``pickle_child``), and nowhere else.
"""

from __future__ import annotations

import collections
import ctypes
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import IO, Any, TypeAlias

import torch
from torch import Tensor

from converter.errors import ExecutionError, SourceError

MAX_DEPTH = 32
MAX_VALUES = 500_000

Loader: TypeAlias = Callable[[IO[bytes]], object]
Row: TypeAlias = dict[str, Any]
Description: TypeAlias = dict[str, list[Row]]

_PLAIN_CLASSES = ("Tensor", "Parameter", "FakeTensor")
_CALL_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class ArchiveLoader:
    """A loader of archives that leaves values unread and notes where they lie.

    ``tells_sizes`` is whether a storage has the size that the pickle says.
    """

    load: Loader
    tells_sizes: bool


def archive_loader() -> ArchiveLoader:
    """Return the loader of this version of torch; raises ExecutionError when it has none.

    It has run once, on a checkpoint of its own, so that it need open no file any more.
    """
    for load in (load_on_meta, load_as_fakes):
        tensor: Any = _tried(load, is_archive=True)
        if tensor is not None and _position(tensor) is not None:
            # In torch 2.10 the storages of fakes are too large, by the size of an element.
            return ArchiveLoader(load, tensor.untyped_storage().nbytes() == tensor.nbytes)
    raise ExecutionError("this version of torch does not say where values lie", code="torch")


def stream_loader() -> Loader:
    """Return a loader of files of the layout before torch 1.6, values and all; it has run once."""
    _tried(load_on_cpu, is_archive=False)
    return load_on_cpu


def load_on_meta(file: IO[bytes]) -> object:
    """Load an archive without its values."""
    loaded: object = torch.load(file, map_location="meta", weights_only=True)  # noqa: TID251
    return loaded


def load_as_fakes(file: IO[bytes]) -> object:
    """Load an archive without its values, in versions that read them even for ``meta``."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        loaded: object = torch.load(file, weights_only=True)  # noqa: TID251
    return loaded


def load_on_cpu(file: IO[bytes]) -> object:
    """Load a file and its values."""
    loaded: object = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
    return loaded


def _tried(loader: Loader, *, is_archive: bool) -> object:
    sample = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, sample, _use_new_zipfile_serialization=is_archive)
    sample.seek(0)
    try:
        loaded: Any = loader(sample)
    except RuntimeError:  # it looked for values
        return None
    return loaded["a"]


def describe_archive(loader: ArchiveLoader, archive: IO[bytes]) -> Description:
    """Return the rows of what an archive holds; raises SourceError, and what torch raises.

    ``tensors`` has each by its path, the keys of the nested dicts, and where in the archive its
    storage lies; ``others`` is what else the dicts hold.
    """
    described = _describe(loader.load(archive), _position)
    if not loader.tells_sizes:
        for row in described["tensors"]:
            row["storage_bytes"] = None
    return described


def describe_stream(loaded: object, spool: IO[bytes], unwrap: str) -> Description:
    """Return the rows of what was loaded whole; raises SourceError and ExecutionError.

    The storages of tensors below ``unwrap``, a dotted path, are written to ``spool``, one after the
    other; ``spooled`` says where each of them lies there.
    """
    numbers: dict[int, int] = {}  # of storages, by address

    def locate(tensor: Tensor) -> int | None:
        if tensor.device.type != "cpu":
            return None
        return numbers.setdefault(tensor.untyped_storage().data_ptr(), len(numbers))

    described = _describe(loaded, locate)
    sizes: dict[int, int] = {}
    for row in described["tensors"]:
        if not unwrap or unwrap in accumulate(row["path"][:-1], "{}.{}".format):
            number = row["storage"]
            sizes[number] = max(sizes.get(number, 0), row["storage_bytes"])
    addresses = {number: address for address, number in numbers.items()}
    _check_apart([(addresses[number], size) for number, size in sizes.items()])
    described["spooled"] = []
    begin = 0
    for number, size in sizes.items():
        if size:
            _write(spool, (ctypes.c_char * size).from_address(addresses[number]))
        described["spooled"].append({"storage": number, "begin": begin, "size": size})
        begin += size
    return described


def _describe(loaded: object, locate: Callable[[Tensor], int | None]) -> Description:
    if not _is_named(loaded):
        raise SourceError(
            "not a dict of names",
            code="content",
            expected="a dict of tensors, or of such dicts",
            got=_what(loaded, _Budget()),
        )
    tensors: list[Row] = []
    others: list[Row] = []
    for path, value in _leaves(loaded, _Budget()):
        if isinstance(value, str):
            others.append({"path": path, "what": value})
            continue
        flaw = _flaw(value)
        storage = None if flaw else locate(value)
        if storage is None:
            others.append({"path": path, "what": flaw or "a tensor without values in the file"})
        else:
            tensors.append(_row(path, value, storage))
    return {"tensors": tensors, "others": others}


class _Budget:
    """How many values may still be looked at; a small pickle can stand for endless ones."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def spend(self, depth: int) -> None:
        """Take one, ``depth`` dicts or lists below the first. Raises SourceError."""
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise SourceError(
                "the pickle is stuffed",
                code="content",
                expected=f"at most {MAX_VALUES:,} values, nested {MAX_DEPTH} deep",
                got="more values" if self._left < 0 else "more depth",
            )


def _leaves(
    values: Any, budget: _Budget, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Tensor | str]]:
    """Yield tensors by their paths and, for all else, text that says what it is."""
    for key, value in values.items():
        path = (*above, key)
        budget.spend(len(path))
        if isinstance(value, Tensor):
            yield path, value
        elif _is_named(value):
            yield from _leaves(value, budget, path)
        else:
            yield path, _what(value, budget)


def _is_named(value: object) -> bool:
    """Whether a value is a dict, all keys of which are text that can be written."""
    return type(value) in (dict, collections.OrderedDict) and all(
        type(key) is str and not any("\ud800" <= char <= "\udfff" for char in key)
        for key in value  # type: ignore[attr-defined]
    )


def _what(value: object, budget: _Budget) -> str:
    """Say what a value is that is neither a tensor nor a dict of names."""
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return "a tensor"
    if not isinstance(value, (dict, list, tuple, set)):
        return "None" if value is None else f"a value of type {kind}"
    keys = " with keys that are not text" if isinstance(value, dict) else ""
    count = _count(value, budget, 1)
    return f"a {kind} of {len(value)}{keys}, {count} tensor{'' if count == 1 else 's'} inside"


def _count(value: object, budget: _Budget, depth: int) -> int:
    """Return how many tensors are inside of a value."""
    budget.spend(depth)
    if isinstance(value, dict):
        return sum(_count(item, budget, depth + 1) for item in value.values())
    if isinstance(value, (list, tuple, set)):
        return sum(_count(item, budget, depth + 1) for item in value)
    return int(isinstance(value, Tensor))


def _flaw(tensor: Tensor) -> str | None:
    """Say in what way a tensor is not plain, if it is not."""
    if type(tensor).__name__ not in _PLAIN_CLASSES:
        return f"a tensor of the class {type(tensor).__name__}"
    if tensor.layout is not torch.strided or tensor.is_nested:
        return f"a tensor of the layout {tensor.layout}"
    if tensor.is_quantized:
        return "a quantized tensor"
    if tensor.is_conj() or tensor.is_neg():
        return "a tensor that is the conjugate or the negative of what is stored"
    return None


def _position(tensor: Any) -> int | None:
    """Return where a tensor's storage lies in the archive, as the loader noted it."""
    position = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    return position if type(position) is int else None


def _row(path: tuple[str, ...], tensor: Tensor, storage: int) -> Row:
    return {
        "path": path,
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "strides": list(tensor.stride()),
        "offset": tensor.storage_offset(),
        "storage": storage,
        "storage_bytes": tensor.untyped_storage().nbytes(),
    }


def _check_apart(extents: list[tuple[int, int]]) -> None:
    """Refuse storages that are views of one another, which hides what they share."""
    end = 0
    for address, size in sorted(extents):
        if address < end:
            what = "storages overlap, as only files of very early versions of torch have it"
            raise SourceError(what, code="content")
        end = address + size


def _write(spool: IO[bytes], data: ctypes.Array[ctypes.c_char]) -> None:
    rest = memoryview(data).cast("B")
    try:
        while rest:
            rest = rest[spool.write(rest[:_CALL_BYTES]) :]
    except OSError as error:
        what = f"values cannot be put on the disk of the target: {error.strerror}"
        raise ExecutionError(what, code="io") from error
