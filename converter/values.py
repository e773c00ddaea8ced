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

from converter.errors import ValueRefusedError
from converter.finding import Finding
from converter.manifest import Statistics, TensorRecord
from converter.steps.float64 import fixed_order_sum, to_float64

BLOCK_ELEMENTS = 1 << 17


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
    moments, nonfinite = _Moments(), 0
    for block in _blocks(tensor):
        finite = block[torch.isfinite(block)] if tensor.is_floating_point() else block
        nonfinite += len(block) - len(finite)
        moments = moments.joined(_of_block(finite))
    if not moments.count:
        return Statistics(0.0, 0.0, 0.0, 0.0, nonfinite)
    # Adding 0.0 turns -0.0 into 0.0: which of equal zeros is smallest depends on the CPU.
    return Statistics(
        mean=moments.mean,
        std=math.sqrt(moments.squares / moments.count),
        min=moments.low + 0.0,
        max=moments.high + 0.0,
        nonfinite=nonfinite,
    )


def _blocks(tensor: Tensor) -> Iterator[Tensor]:
    flat = tensor.reshape(-1)
    for begin in range(0, len(flat), BLOCK_ELEMENTS):
        yield to_float64(flat[begin : begin + BLOCK_ELEMENTS])


def _of_block(values: Tensor) -> _Moments:
    count = len(values)
    if not count:
        return _Moments()
    low, high = torch.aminmax(values)
    mean = fixed_order_sum(values, 0).item() / count
    apart = values - mean
    squares = fixed_order_sum(apart * apart, 0).item()
    return _Moments(count, mean, squares, low.item(), high.item())


def refuse_nonfinite(name: str, stats: Statistics | None) -> None:
    """Raise ValueRefusedError when the tensor holds NaN or infinity."""
    if stats is not None and stats.nonfinite:
        raise ValueRefusedError(
            "the tensor holds NaN or infinity",
            code="nonfinite",
            tensor=name,
            expected="finite values",
            got=f"{stats.nonfinite} values that are not",
            hint="mend the source; a rule file may list the name under allow_nan if it is meant",
        )


def prove(expect: str, name: str, tensor: Tensor, twin: Tensor | None = None) -> str:
    """Return what the value of a dropped tensor was shown to be; ``twin`` is what it must equal.

    Raises ValueRefusedError when the expectation does not hold.
    """
    if expect == "arange":
        wanted = torch.arange(tensor.numel(), dtype=tensor.dtype).view(tensor.shape)
    elif expect == "lower_triangular":
        wanted = torch.ones(tensor.shape, dtype=tensor.dtype).tril()
    else:
        assert twin is not None
        wanted = twin
    same = wanted.dtype == tensor.dtype and wanted.shape == tensor.shape
    if not same or not torch.equal(bytes_of(wanted), bytes_of(tensor)):
        raise ValueRefusedError(
            f"a tensor that would be dropped is not what the rule says ({expect})",
            code="expect",
            tensor=name,
            expected=expect,
            got=_difference(tensor, wanted) if same else f"{tensor.dtype} {list(tensor.shape)}",
            hint="the network would not rebuild this value: keep the tensor, or mend the source",
        )
    return expect


def bytes_of(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor in row-major order, U8 [size in bytes]."""
    # A single element counts as contiguous whatever its stride, which view(dtype) refuses.
    if tensor.numel() == 1:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    return tensor.contiguous().view(-1).view(torch.uint8)


def _difference(tensor: Tensor, wanted: Tensor) -> str:
    found, expected = tensor.reshape(-1), wanted.reshape(-1)
    differs = (found != expected).nonzero()
    if not len(differs):
        return "values that are equal but not in their bits"
    first = int(differs[0])
    return (
        f"{len(differs)} of {len(found)} values differ, the first at {first}: "
        f"{found[first].item()}, not {expected[first].item()}"
    )


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
