"""What two ranks load together."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from canonical_fixture import random_tensor
from torch import Tensor

RANKS = 2

# Along which dim a tensor is spread over the ranks; None: all of it is on each. Those that are not
# here are ordinary tensors.
DIMS: Mapping[str, int | None] = {
    "rows": 0,
    "uneven": 0,
    "columns": 1,
    "inner": 2,
    "long": 0,
    "wide": 1,
    "everywhere": None,
}


def tensors() -> dict[str, Tensor]:
    """Return what is stored, the same in every process."""
    torch.manual_seed(0)
    return {
        "rows": random_tensor("F32", (6, 5)),
        "uneven": random_tensor("BF16", (5, 3)),
        "columns": random_tensor("F16", (5, 6)),
        "inner": random_tensor("F64", (3, 2, 7)),
        "long": random_tensor("BF16", (1 << 10, 48)),
        "wide": random_tensor("BF16", (48, 1 << 10)),
        "everywhere": random_tensor("F32", (4, 4)),
        "plain": random_tensor("U8", (9,)),
        "scalar": random_tensor("F32", ()),
        "counts": random_tensor("I64", (1,)),
    }
