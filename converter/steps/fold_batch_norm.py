"""Fold a batch norm, as it is in evaluation, into the convolution or linear layer before it.

Source: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 2, steps 11 and 12, with the layer's
bias inside of the mean: ``w' = w · f`` and ``b' = (b - mean) · f + beta`` for
``f = gamma / sqrt(var + eps)``. ``torch.nn.utils.fusion.fuse_conv_bn_eval`` computes the same in
the layer's dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError, StepError, ValueRefusedError
from converter.spec import Shape, TensorSpec
from converter.steps.dtypes import dtype_name
from converter.steps.layout import (
    refuse_negative_dims,
    require_count,
    require_dim,
    shape_text,
    with_size,
)
from converter.steps.step import Array, Number, Runs, Shapes, Specs, Step, Takes, Tensors

_DTYPES = ("F64", "F32", "F16", "BF16")
_LISTS = {
    3: "weight, mean, variance",
    4: "weight, bias, mean, variance",
    5: "weight, gamma, beta, mean, variance",
    6: "weight, bias, gamma, beta, mean, variance",
}


@dataclass(frozen=True, slots=True)
class FoldBatchNorm:
    """Replace a layer and the batch norm behind it by the layer that does both.

    Takes, in this order, the layer's weight, its bias if it has one, the norm's weight gamma and
    bias beta unless it has none, running mean, and running variance. Which of them there are, their
    number tells: 6 with all, 5 without the layer's bias, 4 without gamma and beta, 3 without both.
    Gives weight and bias. ``dim`` of the weight is that of the output channels: 0, or 1 for a
    transposed convolution of one group. ``eps`` is the norm's. Computed in float64, rounded once.

    Shapes: weight ``[o, i, k]``, each other ``[o] → [o, i, k], [o]`` for ``dim`` 0.
    Dtype: the weight's, F64, F32, F16 or BF16, for both; statistics may be of another of these.
    Inverse: none; the statistics are lost.
    Raises RuleError for a negative dim or eps, StepError when the tensors are no such list,
    ValueRefusedError when a variance is no positive number, or finite numbers overflow.

    >>> weight, channel = TensorSpec("F32", (8, 4, 3)), TensorSpec("F32", (8,))
    >>> print(*FoldBatchNorm(dim=0, eps=1e-5).infer((weight, *[channel] * 4)))
    F32 [8, 4, 3] F32 [8]
    """

    name: ClassVar[str] = "fold_batch_norm"
    takes: ClassVar[Takes] = "all"
    fan_out: ClassVar[int] = 2

    dim: int
    eps: Number

    def __post_init__(self) -> None:
        refuse_negative_dims(self.name, self.dim)
        if not 0 <= self.eps < math.inf:
            raise RuleError(
                "fold_batch_norm: no eps", expected="a number of 0 or more", got=repr(self.eps)
            )

    def infer(self, inputs: Specs) -> Specs:
        if len(inputs) not in _LISTS:
            raise StepError(
                "fold_batch_norm: not a layer and its norm",
                expected=" or ".join(f"{count}: {names}" for count, names in _LISTS.items()),
                got=f"{len(inputs)} tensors",
            )
        weight, *others = inputs
        channels = self._channels(weight.shape)
        for name, spec in zip(_LISTS[len(inputs)].split(", ")[1:], others, strict=True):
            if spec.shape != channels:
                raise StepError(
                    f"fold_batch_norm: the {name} is not one number for each output channel",
                    expected=f"{shape_text(channels)}, for weight {weight} and dim {self.dim}",
                    got=str(spec),
                    hint=f"{len(inputs)} tensors are {_LISTS[len(inputs)]}",
                )
        for spec in inputs:
            if spec.dtype not in _DTYPES:
                raise StepError(
                    f"fold_batch_norm: {spec.dtype} cannot be folded",
                    expected=f"one of {', '.join(_DTYPES)}",
                    got=str(spec),
                )
        return (weight, TensorSpec(weight.dtype, channels))

    def apply(self, inputs: Tensors) -> Tensors:
        import numpy as np

        from converter.steps.float64 import rounded_result, to_float64

        weight, *others = inputs
        *layer, mean, variance = (to_float64(other) for other in others)
        bias = layer.pop(0) if len(layer) % 2 else None
        gamma, beta = layer or (np.ones_like(mean), np.zeros_like(mean))
        spread = variance + float(self.eps)
        _refuse_unless_positive(spread)
        factor = gamma / np.sqrt(spread)
        shape = with_size((1,) * weight.ndim, self.dim, factor.size)
        folded = to_float64(weight) * factor.reshape(shape)
        shift = (-mean if bias is None else bias - mean) * factor + beta
        dtype = dtype_name(weight)
        # What overflows is told by the factor's inputs too, were they finite.
        statistics = [part.reshape(shape) for part in (gamma, variance)]
        return (
            rounded_result(self.name, folded, dtype, [weight, *statistics]),
            rounded_result(self.name, shift, dtype, others),
        )

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        return None

    @property
    def keeps_rows(self) -> bool:
        return self.dim == 0

    def inverse(self, inputs: Specs) -> Step | None:
        return None

    def preimage(self, outputs: Shapes) -> Shapes | None:
        require_count(self.name, 2, outputs)
        weight, bias = outputs
        if bias != self._channels(weight):
            raise StepError(
                "fold_batch_norm: the bias is not one number for each output channel",
                expected=shape_text(self._channels(weight)),
                got=shape_text(bias),
            )
        return None

    def _channels(self, weight: Shape) -> Shape:
        require_dim(self.name, self.dim, weight)
        return (weight[self.dim],)


def _refuse_unless_positive(spread: Array) -> None:
    import numpy as np

    # Written so that NaN is refused too.
    wrong = ~((spread > 0) & np.isfinite(spread))
    if refused := int(wrong.sum()):
        raise ValueRefusedError(
            f"fold_batch_norm: {refused} of {spread.size} variances are no positive number",
            expected="a finite variance, which with eps is above 0",
            got=f"{float(spread[wrong][0])!r} with eps",
            hint="look at the order of the tensors: the variance is the last",
        )
