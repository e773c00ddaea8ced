"""Tensors as views of the bytes of a file."""

from __future__ import annotations

from itertools import accumulate
from operator import mul

import torch
from torch import Tensor

from converter.runtime.collector import paused
from converter.runtime.directory import OpenFile
from converter.spec import Shape
from converter.torch_dtypes import TORCH_DTYPES


@paused()
def carve(file: OpenFile, memory: Tensor) -> dict[str, Tensor]:
    """Return the tensors of ``file``, whose data lies in the uint8 ``memory``, by name.

    They share that memory, but not a version counter: autograd holds a write to one against no
    other, as when an optimizer steps while the backward pass still needs the rest.
    """
    begin = memory.storage_offset() - file.data_begin
    as_dtype: dict[str, tuple[Tensor, int]] = {}
    strides: dict[Shape, list[int]] = {}
    tensors: dict[str, Tensor] = {}
    for record in file.tensors:
        if record.dtype not in as_dtype:
            as_dtype[record.dtype] = _as_dtype(memory, TORCH_DTYPES[record.dtype])
        if record.shape not in strides:
            strides[record.shape] = contiguous_strides(record.shape)
        wide, width = as_dtype[record.dtype]
        # An empty tensor lies after the odd ones, where none of a wider dtype may begin.
        offset = (begin + record.offset) // width if record.size else 0
        # One call for each of what may be many small tensors: slicing takes three.
        tensors[record.name] = wide.as_strided(record.shape, strides[record.shape], offset).data
    return tensors


def _as_dtype(memory: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    width = dtype.itemsize
    return memory[: memory.numel() // width * width].view(dtype), width


def contiguous_strides(shape: Shape) -> list[int]:
    """Return the strides, in elements, of a contiguous tensor."""
    inner = accumulate((max(size, 1) for size in reversed(shape[1:])), mul, initial=1)
    return list(inner)[::-1] if shape else []
