"""Files that pretend to be checkpoints of torch, each with what the refusal of it must name."""

from __future__ import annotations

import collections
import io
import os
import pickle  # noqa: TID251  # these files are made with it; none is read
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from pickles import saved
from torch import Tensor, nn

MARKER = "marker"
PLAIN: Mapping[str, Any] = {"a": torch.arange(6.0), "b": torch.arange(4).reshape(2, 2)}


@dataclass(frozen=True)
class Case:
    """A file, the code of its refusal, and a text that the refusal must have."""

    make: Callable[[], bytes]
    code: str
    names: str = ""


Parts: TypeAlias = Mapping[str, bytes]


class Call:
    """Pickled as a call; whoever is naive about it makes the call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call


def command() -> Call:
    """Return what creates the marker file when it is unpickled as it asks to be."""
    return Call(os.system, f"touch {MARKER}")


def parts_of(data: bytes) -> dict[str, bytes]:
    """Return the members of an archive, by path."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive(parts: Parts, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive of members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, data in parts.items():
            made.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def with_part(name: str, data: bytes, obj: object = PLAIN) -> bytes:
    """Return a checkpoint in which one member is another, or one more."""
    return archive({**parts_of(saved(obj)), f"archive/{name}": data})


def with_pickle(data: bytes, obj: object = PLAIN) -> bytes:
    """Return a checkpoint whose pickle is another."""
    return with_part("data.pkl", data, obj)


def duplicated() -> bytes:
    """Return an archive with two members of one name, of which tools read either."""
    parts = parts_of(saved(PLAIN))
    data = archive({**parts, "archive/data.pkX": pickle.dumps(command(), 2)})
    return data.replace(b"archive/data.pkX", b"archive/data.pkl")


def edited(offset: int, layout: str, value: int, *, member: str = "data/0") -> bytes:
    """Return a checkpoint with one field of a member's entry in the directory changed."""
    data = bytearray(archive(parts_of(saved(PLAIN))))
    position = data.rindex(f"archive/{member}".encode()) - 46 + offset
    struct.pack_into(layout, data, position, value)
    return bytes(data)


def overlapping() -> bytes:
    """Return an archive in which one member lies in another's data."""
    inner = archive(parts_of(saved(PLAIN)))
    first = inner.index(b"PK\x03\x04", 4)
    data = bytearray(inner)
    position = data.rindex(b"archive/data.pkl") - 46
    size = first + 40
    struct.pack_into("<2L", data, position + 20, size, size)
    struct.pack_into("<2L", data, 18, size, size)
    return bytes(data)


def said_twice() -> bytes:
    """Return an archive in which a member's own header bears another name than its entry."""
    data = bytearray(archive(parts_of(saved(PLAIN))))
    data[30 : 30 + len("archive/data.pkl")] = b"archive/data.pkX"
    return bytes(data)


def damaged(text: bytes) -> bytes:
    """Return a checkpoint in which a byte of the data that ``text`` begins is another."""
    data = bytearray(saved(PLAIN))
    data[data.index(text) + 1] ^= 0x10
    return bytes(data)


def rebuilt(storage: Any, offset: int, size: Any, strides: Any) -> bytes:
    """Return a checkpoint whose tensor is made with these figures."""
    call = Call(
        torch._utils._rebuild_tensor_v2,
        storage,
        offset,
        size,
        strides,
        False,
        collections.OrderedDict(),
    )
    return saved({"a": call})


def storage() -> Any:
    """Return the storage of four numbers, as torch.save takes it."""
    untyped = torch.arange(4.0).untyped_storage()
    make: Any = torch.storage.TypedStorage
    return make(wrap_storage=untyped, dtype=torch.float32, _internal=True)


def sparse() -> bytes:
    indices = torch.tensor([[0, 99], [0, 99]])
    tensor = torch.sparse_coo_tensor(indices, torch.ones(2), (2, 2), check_invariants=False)
    return saved({"embed.weight": tensor})


def quantized() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch will do without them some day
        return saved({"a": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)})


class Odd(Tensor):
    """A class of tensors of its own."""


def deep(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"a": torch.ones(1)}
    for _ in range(depth):
        value = {"n": value}
    return value


def endless() -> dict[str, Any]:
    value: dict[str, Any] = {"a": torch.ones(1)}
    value["again"] = value
    return value


def laughs(levels: int = 30) -> dict[str, Any]:
    value: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        value = {"x": value, "y": value}
    return value


def stream(*pickles: bytes) -> bytes:
    """Return a file of the old layout, of which the first pickles are others."""
    buffer = io.BytesIO(saved(PLAIN, is_archive=False))
    originals = []
    for _ in range(5):
        begin = buffer.tell()
        list(pickle_operations(buffer))
        originals.append(buffer.getvalue()[begin : buffer.tell()])
    return b"".join([*pickles, *originals[len(pickles) :], buffer.read()])


def pickle_operations(file: io.BytesIO) -> Any:
    import pickletools

    return pickletools.genops(file)


def old_head(number: int) -> list[bytes]:
    """Return the first pickles of a file of the old layout."""
    heads = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), pickle.dumps({}, 2)]
    return heads[:number]


def tar() -> bytes:
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        made.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


def script() -> bytes:
    """Return what TorchScript saves: code beside the tensors."""
    parts = {"constants.pkl": b"x", "code/__torch__.py": b"class A(Module): ..."}
    return archive(parts_of(saved(PLAIN)) | {f"archive/{k}": v for k, v in parts.items()})


CODE: Mapping[str, Case] = {
    "os.system": Case(lambda: saved({"a": command()}), "pickle-code", "posix.system"),
    "os.system, in a list that is left out": Case(
        lambda: saved({"net": PLAIN, "hooks": [command()]}), "pickle-code", "posix.system"
    ),
    "os.system, before torch 1.6": Case(
        lambda: saved({"a": command()}, is_archive=False), "pickle-code", "posix.system"
    ),
    "os.system, in the head of an old file": Case(
        lambda: stream(*old_head(2), pickle.dumps(command(), 2)), "pickle-code", "posix.system"
    ),
    "os.system, in place of the keys": Case(
        lambda: stream(*old_head(3), pickle.dumps({}, 2), pickle.dumps([command()], 2)),
        "pickle-code",
        "posix.system",
    ),
    **{
        f"os.system, a bare pickle of protocol {number}": Case(
            partial(pickle.dumps, command(), number), "pickle-code", "posix.system"
        )
        for number in range(6)
    },
    "os.system, an archive of protocol 4": Case(
        lambda: with_pickle(pickle.dumps(command(), 4)), "pickle-code", "posix.system"
    ),
    "os.system, in a memo": Case(
        lambda: with_pickle(b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x8c\x02ls\x85R."),
        "pickle-code",
        "posix.system",
    ),
    "os.system, as an instance": Case(
        lambda: with_pickle(b"(S'touch marker'\niposix\nsystem\n."), "pickle-code", "posix.system"
    ),
    "eval": Case(lambda: saved({"a": Call(eval, "open('marker', 'w')")}), "pickle-code", "builtin"),
    "getattr": Case(lambda: saved({"a": Call(getattr, 1, "real")}), "pickle-code", "getattr"),
    "torch.jit.load": Case(lambda: saved({"a": Call(torch.jit.load, "x")}), "pickle-code", "torch"),
    "a module": Case(lambda: saved(nn.Linear(2, 2)), "pickle-code", "torch.nn.modules.linear"),
    "TorchScript": Case(script, "pickle-code", "constants.pkl"),
    "a package": Case(partial(with_part, "mod/a.py", b"x = 1"), "pickle-code", "mod/a.py"),
    "a second pickle": Case(partial(with_part, "x.pkl", b"N."), "pickle-code", "x.pkl"),
    "numpy's array": Case(lambda: saved({"a": np.ones(2)}), "pickle-code", "numpy"),
    "numpy's number": Case(
        lambda: saved({"net": PLAIN, "loss": np.float64(1.5)}), "pickle-code", "numpy"
    ),
}

ARCHIVES: Mapping[str, Case] = {
    "a zip bomb": Case(
        lambda: archive({**parts_of(saved(PLAIN)), "archive/data/9": bytes(1 << 22)}, 8),
        "archive",
        "compressed",
    ),
    "one compressed member": Case(partial(edited, 10, "<H", 8), "archive", "compressed"),
    "an encrypted member": Case(partial(edited, 8, "<H", 1), "archive", "encrypted"),
    "a size beyond the file": Case(partial(edited, 24, "<L", 1 << 30), "archive", "compressed"),
    "a member at another place": Case(partial(edited, 42, "<L", 0), "archive", "two accounts"),
    "a member outside": Case(partial(edited, 42, "<L", 1 << 30), "archive", "out of the file"),
    "a member on another disk": Case(partial(edited, 34, "<H", 1), "archive", "several parts"),
    "duplicated members": Case(duplicated, "archive", "twice"),
    "two spellings": Case(partial(with_part, "DATA.PKL", b"N."), "archive", "twice"),
    "overlapping members": Case(overlapping, "archive", "overlap"),
    "two accounts": Case(said_twice, "archive", "two accounts"),
    "a path upwards": Case(partial(with_part, "../../etc/x", b""), "archive", "not fit"),
    "an absolute path": Case(
        lambda: archive({**parts_of(saved(PLAIN)), "/etc/x": b""}), "archive", "not fit"
    ),
    "a path of Windows": Case(partial(with_part, "c:\\x", b""), "archive", "not fit"),
    "another folder": Case(
        lambda: archive({**parts_of(saved(PLAIN)), "other/data/7": b""}), "archive", "below"
    ),
    "no pickle": Case(lambda: archive({"a/data/0": b"1234"}), "archive", "data.pkl"),
    "bytes at the end": Case(lambda: saved(PLAIN) + b"\0", "archive", "truncated"),
    "a comment": Case(lambda: saved(PLAIN)[:-2] + b"\x01\0x", "archive", "truncated"),
    "big-endian": Case(partial(with_part, "byteorder", b"big"), "archive", "byte order"),
    "damaged values": Case(
        lambda: damaged(b"\x00\x00\x80?\x00\x00\x00@"), "archive", "are damaged"
    ),
    "a damaged pickle": Case(lambda: damaged(b"_rebuild_tensor_v2"), "archive", "are damaged"),
    "an empty archive": Case(lambda: archive({}), "pickle", "not a checkpoint"),
}

CONTENTS: Mapping[str, Case] = {
    "an empty file": Case(bytes, "pickle", "not a checkpoint"),
    "text": Case(lambda: b"hello, world\n", "pickle", "not a checkpoint"),
    "the layout of very early torch": Case(tar, "pickle", "not a checkpoint"),
    "a pickle of something else": Case(
        lambda: pickle.dumps({"a": [1.5, "text"]}, 2), "pickle", "not a checkpoint"
    ),
    "another protocol": Case(lambda: with_pickle(pickle.dumps({"a": 1}, 4)), "pickle", "FRAME"),
    "half a pickle": Case(lambda: with_pickle(b"\x80\x02}q\x00("), "pickle", "broken"),
    "not a dict": Case(lambda: saved([torch.ones(2)]), "content", "a list of 1"),
    "a tensor alone": Case(lambda: saved(torch.ones(2)), "content", "a tensor"),
    "keys that are numbers": Case(lambda: saved({1: torch.ones(2)}), "content", "not text"),
    "nothing": Case(lambda: saved({}), "content", "no tensor"),
    "no tensors": Case(lambda: saved({"a": {}, "b": {"c": {}}}), "content", "no tensor"),
    "more than tensors": Case(lambda: saved({"net": PLAIN, "epoch": 3}), "content", "--unwrap net"),
    "a list of tensors": Case(
        lambda: saved({"a": torch.ones(1), "b": [torch.ones(1)]}), "content", "a list of 1"
    ),
    "a name from two nestings": Case(
        lambda: saved({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)}), "content", "one name"
    ),
    "very deep": Case(lambda: saved(deep(40)), "content", "stuffed"),
    "endless": Case(lambda: saved(endless()), "content", "stuffed"),
    "a billion laughs": Case(lambda: saved(laughs()), "content", "stuffed"),
    "a list of a billion laughs": Case(lambda: saved({"x": [laughs()]}), "content", "stuffed"),
    "one value for very many": Case(
        lambda: saved({f"a{n}": PLAIN["a"] for n in range(70)}), "content", "stand for very many"
    ),
    "a name that does not show": Case(
        lambda: saved({"a\x1b[2J": torch.ones(1)}), "header", "not fit to print"
    ),
    "a reserved name": Case(lambda: saved({"__metadata__": torch.ones(1)}), "header", "reserved"),
    "a long name": Case(lambda: saved({"a" * 600: torch.ones(1)}), "header", "length"),
    "half a character": Case(
        lambda: with_pickle(pickle.dumps({"\ud800": 1}, 2)), "content", "not text"
    ),
    "a stride-0 bomb": Case(
        lambda: saved({"a": torch.zeros(1).expand(1 << 40)}), "tensor-kind", "repeats"
    ),
    "an expanded row": Case(
        lambda: saved({"a": torch.zeros(4).expand(3, 4)}), "tensor-kind", "repeats"
    ),
    "overlapping windows": Case(
        lambda: saved({"a": torch.zeros(9).unfold(0, 3, 1)}), "tensor-kind", "repeats"
    ),
    "more than its storage": Case(lambda: rebuilt(storage(), 2, (4,), (1,)), "tensor-kind", "size"),
    "far outside": Case(lambda: rebuilt(storage(), 1 << 60, (4,), (1,)), "tensor-kind", "size"),
    "far strides": Case(lambda: rebuilt(storage(), 0, (2, 2), (1 << 40, 1)), "tensor-kind", "size"),
    "a negative size": Case(lambda: rebuilt(storage(), 0, (-4,), (1,)), "pickle", "restricted"),
    "a size of text": Case(lambda: rebuilt(storage(), 0, "four", (1,)), "pickle", "restricted"),
    "no storage": Case(lambda: rebuilt(None, 0, (4,), (1,)), "pickle", "restricted"),
    "a storage that is not there": Case(
        lambda: archive({k: v for k, v in parts_of(saved(PLAIN)).items() if k[-7:] != "/data/0"}),
        "pickle",
        "restricted",
    ),
    "a storage that is too small": Case(
        partial(with_part, "data/0", bytes(8)), "tensor-kind", "another size"
    ),
    "a storage that is too large": Case(
        partial(with_part, "data/0", bytes(800)), "tensor-kind", "another size"
    ),
    "a dtype that safetensors has not": Case(
        lambda: saved({"a": torch.ones(2, dtype=torch.complex128)}), "tensor-kind", "complex128"
    ),
    "a conjugate": Case(
        lambda: saved({"a": torch.ones(2, dtype=torch.complex64).conj()}), "content", "conjugate"
    ),
    "an out-of-range sparse tensor": Case(sparse, "tensor-kind", "embed.weight"),
    "a quantized tensor": Case(quantized, "tensor-kind", "quantized"),
    "a tensor without values": Case(
        lambda: saved({"a": torch.empty(2, device="meta")}), "tensor-kind", "without values"
    ),
    "a tensor of a class": Case(
        lambda: saved({"a": torch.ones(2).as_subclass(Odd)}), "pickle-code", "Odd"
    ),
    "an empty tensor of torch": Case(
        lambda: saved({"a": Call(torch.Tensor, 3)}), "content", "without values in the file"
    ),
}

# Those that are for the process with its limits alone.
GREEDY: Mapping[str, Case] = {
    "memory": Case(lambda: saved({"a": Call(torch.Tensor, 1 << 40)}), "pickle-memory", "memory"),
    "memory, step by step": Case(
        lambda: with_pickle(
            b"\x80\x02]"
            + b"".join(b"ctorch\nTensor\n\x8a\x04\x00\x00\x00\x04\x85Ra" for _ in range(64))
            + b"."
        ),
        "pickle-memory",
        "memory",
    ),
}
