"""What a tensor is before its bytes are read: dtype and shape.

Dtypes are spelled as safetensors spells them (``F32``, ``BF16``, ``I64`` …).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Kind = Literal["float", "integer", "bool", "complex"]


@dataclass(frozen=True, slots=True)
class DType:
    """A safetensors dtype: its width in bits and what kind of number it holds."""

    bits: int
    kind: Kind


# Source: the safetensors format, version 0.8 of its library (tensor.rs, enum Dtype).
DTYPES: Mapping[str, DType] = {
    "BOOL": DType(8, "bool"),
    "F4": DType(4, "float"),
    "F6_E2M3": DType(6, "float"),
    "F6_E3M2": DType(6, "float"),
    "U8": DType(8, "integer"),
    "I8": DType(8, "integer"),
    "F8_E5M2": DType(8, "float"),
    "F8_E4M3": DType(8, "float"),
    "F8_E8M0": DType(8, "float"),
    "F8_E4M3FNUZ": DType(8, "float"),
    "F8_E5M2FNUZ": DType(8, "float"),
    "I16": DType(16, "integer"),
    "U16": DType(16, "integer"),
    "F16": DType(16, "float"),
    "BF16": DType(16, "float"),
    "I32": DType(32, "integer"),
    "U32": DType(32, "integer"),
    "F32": DType(32, "float"),
    "C64": DType(64, "complex"),
    "F64": DType(64, "float"),
    "I64": DType(64, "integer"),
    "U64": DType(64, "integer"),
}

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Dtype and shape of a tensor.

    ``numel`` is the number of its elements, 1 for a scalar; ``nbytes`` the size of its data in
    bytes, where the last byte of a sub-byte dtype counts whole. Worked out once: many tensors
    share a spec, and all of them are summed up several times.
    """

    dtype: str
    shape: Shape
    numel: int = field(init=False, repr=False, compare=False)
    nbytes: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numel = math.prod(self.shape)
        object.__setattr__(self, "numel", numel)
        object.__setattr__(self, "nbytes", (numel * DTYPES[self.dtype].bits + 7) // 8)

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"


Header: TypeAlias = Mapping[str, TensorSpec]
