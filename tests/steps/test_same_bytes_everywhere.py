"""The steps that compute give the same bytes on every CPU and for any number of threads."""

import os
import subprocess
import sys

SCRIPT = """
import hashlib
import torch
from converter.steps.cast import Cast
from converter.steps.fold_weight_norm import FoldWeightNorm

# Not torch.randn: what it draws depends on the CPU.
direction = ((torch.arange(64 * 96 * 21) * 48271 % 65521 - 32760) / 65521).reshape(64, 96, 21)
special = torch.tensor([float("nan"), -float("nan"), float("inf"), 1e-42, -0.0]).repeat(50)
for threads in (1, 2):
    torch.set_num_threads(threads)
    digest = hashlib.sha256()
    for dim in range(3):
        gain = torch.arange(1.0, direction.shape[dim] + 1)
        gain = gain.reshape([-1 if at == dim else 1 for at in range(3)])
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            (weight,) = FoldWeightNorm(dim).apply([gain.to(dtype), direction.to(dtype)])
            digest.update(weight.view(torch.uint8).numpy().tobytes())
    for dtype in ("BF16", "F16", "F8_E5M2"):
        for values in (special, special.double(), direction.double()):
            (cast,) = Cast(dtype).apply([values])
            digest.update(cast.view(torch.uint8).numpy().tobytes())
    print(digest.hexdigest())
"""


def test_neither_the_cpu_capability_nor_the_threads_show() -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
            stdout=subprocess.PIPE,
            text=True,
        )
        for capability in ("default", "avx2")
    ]
    digests = [digest for process in running for digest in process.communicate()[0].split()]
    assert len(digests) == 4
    assert len(set(digests)) == 1
