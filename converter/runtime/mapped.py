"""Map weights files into memory: nothing of their data is read before it is used."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

from converter.errors import MismatchError, UsageError
from converter.runtime.directory import OpenFile, reading


def require_mappable(device: torch.device, check: str) -> None:
    """Raise UsageError unless tensors on ``device`` can be mapped, and checked as far as asked."""
    if device.type != "cpu":
        raise UsageError(
            "only host memory can be a mapping of a file",
            expected="device='cpu' with mapped=True",
            got=str(device),
            hint="load without mapped=True: files then go to the device in the quickest way",
        )
    if check != "header":
        raise UsageError(
            "bytes of a mapping cannot be proven once for all: a file may change after they are",
            expected="check='header' with mapped=True",
            got=f"check={check!r}",
            hint="load without mapped=True, or run `convert verify` where nobody can write after",
        )


def map_file(file: OpenFile) -> Tensor:
    """Return the data of ``file`` as uint8 [data_bytes], which is read as it is touched.

    The mapping is of the very file whose header was proven, and private: what is written to it
    stays in this process. It lives as long as any view of it. Raises MismatchError when the file
    was cut short since it was opened, and SourceError.
    """
    try:
        with reading(file.path):
            mapping = mmap.mmap(file.descriptor, file.size, access=mmap.ACCESS_COPY)
    except ValueError as error:
        raise MismatchError(
            "the file was cut short while it was read", code="changed", where=str(file.path)
        ) from error
    return torch.frombuffer(mapping, dtype=torch.uint8)[file.data_begin :]
