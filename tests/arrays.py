"""Torch's tensors as numpy's arrays and back, for tests that know one and prove the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from converter import torch_dtypes
from converter.numpy_dtypes import NUMPY_DTYPES, SAFETENSORS_DTYPES
from converter.steps.chain import apply_chain
from converter.steps.step import Step
from converter.torch_dtypes import TORCH_DTYPES

# Dtypes that only one of the two has go by their bits.
_BITS = {1: (np.uint8, torch.uint8), 2: (np.uint16, torch.uint16)}


def array_of(tensor: Tensor) -> NDArray[Any]:
    """Return the array that shares a tensor's memory, strides included."""
    dtype = NUMPY_DTYPES[torch_dtypes.SAFETENSORS_DTYPES[tensor.dtype]]
    if dtype.isbuiltin == 1:
        return tensor.numpy()
    return tensor.view(_BITS[tensor.itemsize][1]).numpy().view(dtype)


def tensor_of(array: NDArray[Any]) -> Tensor:
    """Return the tensor that shares an array's memory, strides included but for negative ones."""
    if min(array.strides, default=0) < 0:
        array = array.copy()
    dtype = TORCH_DTYPES[SAFETENSORS_DTYPES[array.dtype]]
    if array.dtype.isbuiltin == 1:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(_BITS[array.itemsize][0])).view(dtype)


def apply(step: Step, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Apply a step to tensors."""
    return apply_steps((step,), tensors)


def apply_steps(steps: Sequence[Step], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Apply steps in a row to tensors."""
    return [tensor_of(array) for array in apply_chain(steps, [array_of(t) for t in tensors])]
