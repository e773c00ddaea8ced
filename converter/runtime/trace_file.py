"""A trace on its way to its file: tensors are set aside on disk as they come, not kept in memory.

The header of a safetensors file stands before all data, and nobody knows it before the last
tensor is there. So data goes into a nameless file in the folder of the target, and from there, in
the layout of canonical files, into the target, which appears at once and complete.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from converter.canonical import arrange, encode_header
from converter.errors import ExecutionError
from converter.header import MAX_HEADER_MARKS
from converter.positional import read_at, write_at
from converter.spec import TensorSpec
from converter.strict_json import count_marks
from converter.torch_dtypes import SAFETENSORS_DTYPES
from converter.trace_record import Traced, TraceRecord, to_metadata

_COPIED_BYTES = 8 << 20
TOO_MANY = "give only=[…] (--only), so that fewer modules are recorded"


class TraceFile:
    """Takes tensors one by one, and writes them to ``out`` with the record of their calls.

    A tensor with the very bytes of one before it is stored again only if it is to be ``kept``.
    Raises ExecutionError when ``out`` exists and is not to be replaced, and for what the disk does.
    """

    def __init__(self, out: Path, *, overwrite: bool) -> None:
        self.out = out
        self.same: dict[str, str] = {}
        self.left_out: list[str] = []
        self._overwrite = overwrite
        self._begins: dict[str, int] = {}
        self._specs: dict[str, TensorSpec] = {}
        self._by_digest: dict[bytes, str] = {}
        self._end = 0
        self._require_target()
        with _io_errors(out):
            self._spool = tempfile.TemporaryFile(dir=out.parent)  # noqa: SIM115, closed by __exit__

    def add(self, name: str, tensor: Tensor, *, kept: bool = False) -> str | None:
        """Take the tensor as it is now; return the name that it has here, None if it has none."""
        while name in self._specs or name in self.same or name in self.left_out:
            name += "_"  # two places of a network whose names run together
        stored = _stored(tensor)
        if stored is None:
            self.left_out.append(name)
            return None
        spec = TensorSpec(SAFETENSORS_DTYPES[tensor.dtype], tuple(tensor.shape))
        data = stored.numpy().data
        digest = hashlib.sha256(f"{spec}:".encode())
        digest.update(data)
        first = self._by_digest.setdefault(digest.digest(), name)
        if first != name:
            self.same[name] = first
            if not kept:
                return name
        with _io_errors(self.out):
            write_at(self._spool.fileno(), data, self._end)
        self._specs[name], self._begins[name] = spec, self._end
        self._end += data.nbytes
        return name

    def write(self, record: TraceRecord) -> Traced:
        """Write the file, and put it at its place in one step."""
        placements = arrange(self._specs.items())
        header = encode_header(placements, to_metadata(record))
        if count_marks(header) > MAX_HEADER_MARKS:
            got = f"{len(placements):,} tensors of {len(record.calls):,} calls"
            raise ExecutionError("too much for the header of one file", got=got, hint=TOO_MANY)
        staged = self.out.with_name(f".{self.out.name}.{os.getpid()}.partial")
        with _io_errors(self.out), _removed_if_left(staged), staged.open("xb") as file:
            write_at(file.fileno(), header, 0)
            for placement in placements:
                size = placement.end - placement.begin
                begin = self._begins[placement.name]
                self._copy(begin, file.fileno(), len(header) + placement.begin, size)
            os.fsync(file.fileno())
            file.close()
            self._require_target()
            os.replace(staged, self.out)
        return Traced(self.out, record, self._specs, len(header) + self._end)

    def _copy(self, begin: int, fd: int, position: int, size: int) -> None:
        buffer = memoryview(bytearray(min(size, _COPIED_BYTES)))
        done = 0
        while done < size:
            part = buffer[: min(size - done, len(buffer))]
            read_at(self._spool.fileno(), part, begin + done)
            write_at(fd, part, position + done)
            done += len(part)

    def _require_target(self) -> None:
        if os.path.lexists(self.out) and (not self._overwrite or not self.out.is_file()):
            raise ExecutionError(
                "the target exists",
                code="exists",
                where=str(self.out),
                hint="give overwrite (--overwrite) to replace a file, or name another",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._spool.close()


def _stored(tensor: Tensor) -> Tensor | None:
    """Return the bytes of a tensor, uint8 [n] on the CPU; None where safetensors can have none."""
    if (
        tensor.is_meta
        or tensor.layout is not torch.strided
        or tensor.dtype not in SAFETENSORS_DTYPES
    ):
        return None
    plain = tensor.detach().resolve_conj().resolve_neg().to("cpu").contiguous()
    return plain.reshape(-1).view(torch.uint8)


@contextmanager
def _removed_if_left(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def _io_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ExecutionError(
            f"the trace cannot be written: {reason}", code="io", where=str(path)
        ) from error
