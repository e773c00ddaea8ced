"""What the values of a tensor say, and the bytes that hold them."""

from __future__ import annotations

import torch
from torch import Tensor

from converter.steps.float64 import to_float64


def disprove(expect: str, tensor: Tensor) -> str | None:
    """Return how the values differ from ``arange`` or ``lower_triangular``; None: they do not."""
    if tensor.is_complex():
        return "complex numbers"
    if expect == "arange":
        wanted = torch.arange(tensor.numel()).view(tensor.shape)
    else:
        wanted = torch.ones(tensor.shape, dtype=torch.int64).tril()
    if tensor.is_floating_point():
        values, wanted = to_float64(tensor), to_float64(wanted)
    else:
        values = tensor.long()
    differs = (values != wanted).view(-1).nonzero()
    if not len(differs):
        return None
    first = int(differs[0])
    got, want = values.view(-1)[first].item(), wanted.view(-1)[first].item()
    count = f"{len(differs)} of {tensor.numel()}"
    return f"{count} values differ, the first at position {first}: {got}, not {want}"


def bytes_of(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor in row-major order, U8 [size in bytes]."""
    # A single element counts as contiguous whatever its stride, which view(dtype) refuses.
    if tensor.numel() == 1:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    return tensor.contiguous().view(-1).view(torch.uint8)
