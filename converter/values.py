"""What the values of a tensor say: statistics, NaN and infinity, and whether an ``expect`` holds.

Statistics are computed in float64 over fixed blocks combined in order, with sums whose order is
fixed by construction, so that they are the same on every machine.
Source of the combination: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise
algorithm for computing sample variances".
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from converter.finding import Finding
from converter.manifest import Statistics, TensorRecord
from converter.steps.float64 import fixed_order_sum, to_float64

BLOCK_ELEMENTS = 1 << 17

# A power of two, so that counting values in it changes no bit of them. F64 reaches 2**1024.
_LARGE_UNIT = 2.0**544


@dataclass(frozen=True, slots=True)
class _Moments:
    """Count, mean, sum of squared deviations, smallest and largest of some finite values."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def joined(self, other: _Moments) -> _Moments:
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        between = apart * apart * (self.count * other.count / count)
        return _Moments(
            count=count,
            mean=self.mean + apart * (other.count / count),
            squares=self.squares + other.squares + between,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
        )


def statistics(tensor: Tensor) -> Statistics | None:
    """Return the statistics of a tensor; None when it is empty, boolean or complex."""
    if tensor.numel() == 0 or tensor.dtype == torch.bool or tensor.is_complex():
        return None
    unit = 1.0
    moments = _moments(tensor, unit)
    if not math.isfinite(moments.squares):  # squares of F64 values overflow beyond 2**512
        unit = _LARGE_UNIT
        moments = _moments(tensor, unit)
    nonfinite = tensor.numel() - moments.count
    if not moments.count:
        return Statistics(0.0, 0.0, 0.0, 0.0, nonfinite)
    # Adding 0.0 turns -0.0 into 0.0: which of equal zeros is smallest depends on the CPU.
    return Statistics(
        mean=moments.mean * unit,
        std=math.sqrt(moments.squares / moments.count) * unit,
        min=moments.low * unit + 0.0,
        max=moments.high * unit + 0.0,
        nonfinite=nonfinite,
    )


def _moments(tensor: Tensor, unit: float) -> _Moments:
    """Return the moments of the finite values, counted in ``unit``."""
    flat = tensor.reshape(-1)
    moments = _Moments()
    for begin in range(0, len(flat), BLOCK_ELEMENTS):
        block = to_float64(flat[begin : begin + BLOCK_ELEMENTS]) / unit
        finite = torch.isfinite(block)
        moments = moments.joined(_of_block(block if bool(finite.all()) else block[finite]))
    return moments


def _of_block(values: Tensor) -> _Moments:
    count = len(values)
    if not count:
        return _Moments()
    low, high = torch.aminmax(values)
    mean = fixed_order_sum(values, 0).item() / count
    apart = values - mean
    squares = fixed_order_sum(apart * apart, 0).item()
    return _Moments(count, mean, squares, low.item(), high.item())


def count_nonfinite(tensor: Tensor, stats: Statistics | None) -> int:
    """Return how many values of a tensor are NaN or infinite; ``stats`` are its own."""
    if stats is not None:
        return stats.nonfinite
    return int((~torch.isfinite(tensor)).sum()) if tensor.is_complex() else 0


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


def suspicions(tensors: Iterable[TensorRecord]) -> list[Finding]:
    """Return warnings about weights that look freshly initialised, or stored twice."""
    matrices = [t for t in tensors if len(t.shape) >= 2 and t.spec.numel >= 1024 and t.stats]
    return [*_one_common_std(matrices), *_twins(matrices)]


def _one_common_std(matrices: list[TensorRecord]) -> Iterator[Finding]:
    """Warn when over half of the matrices have mean 0 and one std, as initialisers leave them."""
    centred = [t for t in matrices if t.stats and abs(t.stats.mean) < 1e-3 and t.stats.std > 0]
    stds = sorted(t.stats.std for t in centred if t.stats)
    common = max((bisect_right(stds, s * 1.02) - n for n, s in enumerate(stds)), default=0)
    if len(matrices) >= 4 and common * 2 > len(matrices):
        yield Finding(
            "looks-initialised",
            "most matrices have mean 0 and one common standard deviation",
            expected="weights that were trained",
            got=f"{common} of {len(matrices)} matrices alike",
            hint="check that the source is a trained checkpoint",
            severity="warning",
        )


def _twins(matrices: list[TensorRecord]) -> Iterator[Finding]:
    groups: dict[str, list[str]] = {}
    for tensor in matrices:
        if tensor.stats and tensor.stats.std > 0:
            groups.setdefault(tensor.sha256, []).append(tensor.name)
    for names in groups.values():
        if len(names) > 1:
            yield Finding(
                "equal-tensors",
                "tensors with equal bytes that no alias declares",
                tensor=", ".join(names),
                hint="declare an alias if they are tied",
                severity="warning",
            )
