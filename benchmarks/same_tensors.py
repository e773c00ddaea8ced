"""Compare two safetensors files tensor by tensor: ``python -m benchmarks.same_tensors --help``.

Answers with one line of JSON; leaves with 1 when they are not equal. Memory is that of two tensors.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

# torch folds in F32 and strays by some ulp; a layout mistake is off by the values themselves.
TOLERANCE = 1e-5


def relative_difference(left: NDArray[np.generic], right: NDArray[np.generic]) -> float:
    """Return the largest difference as a share of the largest magnitude; infinity unless alike."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return float("inf")
    if left.size == 0 or np.array_equal(left, right):
        return 0.0
    apart = np.max(np.abs(np.subtract(left, right, dtype=np.float64)))
    return float(apart / np.max(np.abs(left)))


def compare(left: Path, right: Path, *, folded: str, subset: bool) -> dict[str, float | str]:
    """Return how many tensors and bytes were compared, or which is the first that differs.

    Tensors whose name holds ``folded`` may differ by ``TOLERANCE``; with ``subset``, ``right`` may
    lack some of the tensors of ``left``.
    """
    count, size, largest = 0, 0, 0.0
    with safe_open(left, framework="numpy") as ours, safe_open(right, framework="numpy") as theirs:
        names = sorted(theirs.keys())
        if not names or not set(names) <= set(ours.keys()):
            return {"differs": "the names"}
        if not subset and len(names) < len(ours.keys()):
            return {"differs": "the names"}
        for name in names:
            mine = ours.get_tensor(name)
            apart = relative_difference(mine, theirs.get_tensor(name))
            if not apart <= (TOLERANCE if folded and folded in name else 0):
                return {"differs": name}
            count, size, largest = count + 1, size + mine.nbytes, max(largest, apart)
    return {"tensors": count, "bytes": size, "largest_relative_difference": largest}


def main() -> int:
    """Compare the files that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("left", type=Path)
    parser.add_argument("right", type=Path)
    parser.add_argument("--folded", default="", help="what the names of folded tensors hold")
    parser.add_argument("--subset", action="store_true", help="the right may lack some")
    chosen = parser.parse_args()
    answer = compare(chosen.left, chosen.right, folded=chosen.folded, subset=chosen.subset)
    print(json.dumps(answer))
    return 1 if "differs" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
