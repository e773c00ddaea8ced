"""How many float32 values lie between two tensors."""

from __future__ import annotations

import torch
from reference_weights import Tensors
from torch import Tensor

FOLD_ULPS = 8


def ulps(one: Tensor, other: Tensor) -> int:
    """Return the largest number of steps from a value to its counterpart, both float32."""
    assert one.dtype == other.dtype == torch.float32
    assert one.shape == other.shape
    return int((_ordered(one) - _ordered(other)).abs().max())


def assert_near(got: Tensors, expected: Tensors, folds: frozenset[str]) -> None:
    """Assert equal names and bits; those of ``folds`` may differ by ``FOLD_ULPS``."""
    assert got.keys() == expected.keys()
    assert folds <= got.keys()
    for name, tensor in expected.items():
        allowed = FOLD_ULPS if name in folds else 0
        assert ulps(got[name], tensor) <= allowed, name


def _ordered(tensor: Tensor) -> Tensor:
    """Return integers that are in the order of the floats, with no gap between neighbours."""
    bits = tensor.contiguous().view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
