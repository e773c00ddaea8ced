"""Load a canonical directory into a module of one's own: strictly, or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tiny import RULES, make_checkpoint
from torch import nn

from converter import api
from converter.errors import MismatchError
from converter.runtime import load_into


class Block(nn.Module):
    """Its attributes bear the canonical names, so there is nothing to map when it is loaded."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, nn.Linear(hidden, hidden, bias=False))
        self.norm = nn.RMSNorm(hidden)


with tempfile.TemporaryDirectory() as folder:
    out = Path(folder, "out")
    api.convert(make_checkpoint(Path(folder, "tiny.safetensors")), out, rules=RULES)

    network = nn.ModuleDict({"blocks": nn.ModuleList(Block(8) for _ in range(2))})
    load_into(network, out, device="cpu", check="full")
    print(f"Loaded {len(network.state_dict())} tensors, every byte of them proven")

    other = nn.ModuleDict({"blocks": nn.ModuleList(Block(4) for _ in range(3))})
    try:
        load_into(other, out)
    except MismatchError as error:
        print(f"\nAnother network is refused, with {len(error.findings)} differences:\n{error}")
