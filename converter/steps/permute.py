"""Put all dims in another order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import StepError
from converter.spec import Shape, TensorSpec
from converter.steps.layout import (
    inverse_permutation,
    require_permutation,
    require_whole_bytes,
    shape_text,
)
from converter.steps.step import Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Permute:
    """Put the dims in the order ``dims``: dim i of the output is dim ``dims[i]`` of the input.

    Shapes: ``[a, b, c] → [c, a, b]`` for ``dims`` (2, 0, 1).
    Dtype: unchanged.
    Inverse: ``permute`` by the inverse permutation.
    Raises RuleError when ``dims`` is no permutation, StepError when it is not of all dims.

    >>> print(*Permute(dims=(2, 0, 1)).infer((TensorSpec("F32", (4, 8, 3)),)))
    F32 [3, 4, 8]
    """

    name: ClassVar[str] = "permute"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        require_permutation(self.name, "dims", self.dims)

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        require_whole_bytes(self.name, spec)
        return (TensorSpec(spec.dtype, self._permuted(spec.shape)),)

    def apply(self, inputs: Tensors) -> Tensors:
        (tensor,) = inputs
        return (tensor.transpose(self.dims),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return None

    @property
    def keeps_rows(self) -> bool:
        return self.dims[0] == 0

    def inverse(self, inputs: Specs) -> Permute:
        return Permute(inverse_permutation(self.dims))

    def preimage(self, outputs: Shapes) -> Shapes:
        (shape,) = outputs
        return (Permute(inverse_permutation(self.dims))._permuted(shape),)

    def _permuted(self, shape: Shape) -> Shape:
        if len(shape) != len(self.dims):
            raise StepError(
                f"permute: {len(self.dims)} dims are ordered",
                expected=f"a tensor of {len(self.dims)} dims",
                got=shape_text(shape),
            )
        return tuple(shape[dim] for dim in self.dims)
