"""What looks wrong about the weights of a whole model, seen by statistics and digests alone."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping

from converter.finding import Finding
from converter.fold import fold_names
from converter.manifest import TensorRecord


def suspicions(tensors: Iterable[TensorRecord]) -> list[Finding]:
    """Return warnings about weights that look freshly initialised, or stored twice."""
    matrices = [t for t in tensors if len(t.shape) >= 2 and t.spec.numel >= 1024 and t.stats]
    return [*_initialised(matrices), *_twins(matrices)]


def underflow(flushed: Mapping[str, int], tensors: Iterable[TensorRecord]) -> list[Finding]:
    """Return a warning if casts rounded values to zero; ``flushed`` says how many, by tensor."""
    sizes = {t.name: t.spec.numel for t in tensors if flushed.get(t.name)}
    if not sizes:
        return []
    worst = max(sizes, key=lambda name: (flushed[name] / sizes[name], name))
    count, total = sum(flushed[name] for name in sizes), sum(sizes.values())
    return [
        Finding(
            "underflow",
            "values that are too small for their new dtype became zero",
            tensor=", ".join(fold_names(sizes)),
            got=f"{count:,} of {total:,} values; most of them, by size, in {worst}: "
            f"{flushed[worst]:,} of {sizes[worst]:,}",
            hint="cast to a dtype of a wider range, such as bf16, or leave these as they are",
            severity="warning",
        )
    ]


def _initialised(matrices: list[TensorRecord]) -> Iterator[Finding]:
    """Warn when most matrices are as initialisers leave them: of one std, or without a trace.

    Over half with mean 0 and one common std are those of a model whose every layer is drawn alike.
    Where the std follows the size of a layer, it takes three of four that nothing has touched.
    """
    varied = [t for t in matrices if t.stats and t.stats.std > 0]
    if len(matrices) < 4:
        return
    if (common := _most_of_one_std(varied)) * 2 > len(matrices):
        what = "most matrices have mean 0 and one common standard deviation"
        yield _looks_initialised(what, f"{common} of {len(matrices)} matrices alike")
    elif len(varied) >= 4 and (drawn := sum(map(_as_drawn, varied))) * 4 > len(varied) * 3:
        what = "most matrices have mean 0 and no value that stands out, as they are drawn"
        yield _looks_initialised(what, f"{drawn} of {len(varied)} matrices so")


def _looks_initialised(what: str, got: str) -> Finding:
    return Finding(
        "looks-initialised",
        what,
        expected="weights that were trained",
        got=got,
        hint="check that the source is a trained checkpoint",
        severity="warning",
    )


def _most_of_one_std(matrices: list[TensorRecord]) -> int:
    """Return how many matrices of mean 0 have a std within 2 % of each other."""
    stds = sorted(t.stats.std for t in matrices if t.stats and abs(t.stats.mean) < 1e-3)
    return max((bisect_right(stds, std * 1.02) - n for n, std in enumerate(stds)), default=0)


def _as_drawn(tensor: TensorRecord) -> bool:
    """Whether a matrix may be as it was drawn from a normal or uniform distribution around 0.

    Then its mean is 0 within the error of so many draws, and its largest value is not beyond what
    is to be expected of so many draws from a normal distribution, about std √(2 ln 2n). Training
    moves means, and leaves outliers.
    """
    stats = tensor.stats
    if stats is None:
        return False
    count = tensor.spec.numel - stats.nonfinite
    largest = max(stats.max, -stats.min)
    return abs(stats.mean) <= 4 * stats.std / math.sqrt(
        count
    ) and largest <= 1.08 * stats.std * math.sqrt(2 * math.log(2 * count))


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
