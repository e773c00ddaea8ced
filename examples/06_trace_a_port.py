"""Find the bug of a port: trace the network, trace the port, and see where they part first."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from converter import api, report_compare
from converter.runtime import trace

Array = NDArray[np.float32]


class Block(nn.Module):
    """The network: two of these, and what is to be ported."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [T, 8] → [T, 8]."""
        out: Tensor = x + self.fc2(nn.functional.gelu(self.fc1(self.norm(x))))
        return out


def port(w: dict[str, Array], x: Array) -> dict[str, Array]:
    """Compute the same in numpy, and keep what a few modules take and give, by their names."""
    kept = {"input.input": x}
    for i in "01":
        centred = x - x.mean(-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        normed = normed * w[f"{i}.norm.weight"] + w[f"{i}.norm.bias"]
        kept[f"{i}.norm.output"] = normed
        h = kept[f"{i}.fc1.output"] = normed @ w[f"{i}.fc1.weight"].T + w[f"{i}.fc1.bias"]
        h = (
            h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))) / 2
        )  # not the GELU above
        kept[f"{i}.fc2.input"] = h
        x = kept[f"{i}.output"] = x + h @ w[f"{i}.fc2.weight"].T + w[f"{i}.fc2.bias"]
    return kept


torch.manual_seed(0)
network, x = nn.Sequential(Block(), Block()), torch.randn(5, 8)
weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
with tempfile.TemporaryDirectory() as folder:
    ours, theirs = Path(folder, "ours.safetensors"), Path(folder, "theirs.safetensors")
    trace(network, {"input": x}, ours)
    save_file(port(weights, x.numpy()), theirs)
    answer = report_compare.of_comparison(api.compare(ours, theirs), whole=False)
    print(answer.text.replace(f"{folder}/", ""), answer.findings[0].what, sep="\n\n")
