"""What looks wrong about the weights of a whole model, seen by statistics and digests alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from converter.finding import Finding
from converter.manifest import TensorRecord


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
