"""The steps that compute give the same bytes on every CPU."""

import os
import subprocess
import sys

from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__  # type: ignore[import-not-found]

SCRIPT = """
import hashlib
import ml_dtypes
import numpy as np
from converter.moments import StatisticsStream
from converter.steps.add import Add
from converter.steps.cast import Cast
from converter.steps.dequantize import Dequantize
from converter.steps.fold_batch_norm import FoldBatchNorm
from converter.steps.fold_weight_norm import FoldWeightNorm
from converter.steps.scale import Scale

direction = ((np.arange(64 * 96 * 21) * 48271 % 65521 - 32760) / 65521).reshape(64, 96, 21)
special = np.repeat(np.array([np.nan, -np.nan, np.inf, 1e-42, -0.0], np.float32), 50)
digest = hashlib.sha256()
for dim in range(3):
    gain = np.arange(1.0, direction.shape[dim] + 1)
    gain = gain.reshape([-1 if at == dim else 1 for at in range(3)])
    for dtype in (np.float32, ml_dtypes.bfloat16, np.float16):
        (weight,) = FoldWeightNorm(dim).apply([gain.astype(dtype), direction.astype(dtype)])
        digest.update(weight.tobytes())
for dtype in ("BF16", "F16", "F8_E5M2"):
    for values in (special, special.astype(np.float64), direction):
        (cast,) = Cast(dtype).apply([values])
        digest.update(cast.tobytes())
channel = direction[0, :, 0] + 1.5
for dtype in (np.float32, ml_dtypes.bfloat16, np.float16):
    weight, one = direction.astype(dtype), channel.astype(dtype)
    made = [
        *Scale(0.1).apply([weight]),
        *Add(0.1).apply([weight, weight[::-1], weight]),
        *FoldBatchNorm(1, 1e-5).apply([weight, one, one, one, one, one]),
        *Dequantize((5, 7, 2), "BF16").apply(
            [(direction * 100).astype(np.int8), weight[:13, :14, :11]]
        ),
    ]
    for tensor in made:
        digest.update(tensor.tobytes())
stream = StatisticsStream("F64")
stream.add(memoryview(direction.tobytes()))
digest.update(repr(stream.result()).encode())
print(digest.hexdigest())
"""


def test_what_the_cpu_can_do_does_not_show() -> None:
    extras = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
    assert extras, "numpy uses nothing here that could be left out"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(disabled)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for disabled in ([], extras[-2:], extras)
    ]
    digests = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert digests[0]
    assert len(set(digests)) == 1
