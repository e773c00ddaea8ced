"""Checkpoints of numpy arrays, of any dtype that safetensors has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from converter.canonical import arrange, encode_header
from converter.numpy_dtypes import NUMPY_DTYPES, SAFETENSORS_DTYPES
from converter.spec import TensorSpec


@dataclass(frozen=True)
class Raw:
    """Bytes under a spec that numpy has no array for."""

    spec: TensorSpec
    data: bytes


Arrays: TypeAlias = "Mapping[str, NDArray[Any] | Raw]"


def write(path: Path, arrays: Arrays, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file and return its path."""
    raws = {name: _raw(array) for name, array in arrays.items()}
    placements = arrange((name, raw.spec) for name, raw in raws.items())
    data = b"".join(raws[placement.name].data for placement in placements)
    path.write_bytes(encode_header(placements, metadata or {}) + data)
    return path


def cast(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return an array in a dtype of safetensors, rounded by numpy or ml_dtypes."""
    return array.astype(NUMPY_DTYPES[dtype])


def _raw(array: NDArray[Any] | Raw) -> Raw:
    if isinstance(array, Raw):
        return array
    return Raw(TensorSpec(SAFETENSORS_DTYPES[array.dtype], array.shape), array.tobytes())
