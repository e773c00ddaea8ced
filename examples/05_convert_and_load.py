"""Convert a checkpoint with rules that come with the package, load its network, and run it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from converter import api
from converter.runtime import load_model

VOCAB, POSITIONS, HIDDEN, FFN = 50, 16, 8, 32

# A GPT-2 as it is published, but small, and with weights that were made up.
SHAPES = {
    "wte.weight": [VOCAB, HIDDEN],
    "wpe.weight": [POSITIONS, HIDDEN],
    "h.0.ln_1.weight": [HIDDEN],
    "h.0.ln_1.bias": [HIDDEN],
    "h.0.attn.bias": [1, 1, POSITIONS, POSITIONS],
    "h.0.attn.c_attn.weight": [HIDDEN, 3 * HIDDEN],
    "h.0.attn.c_attn.bias": [3 * HIDDEN],
    "h.0.attn.c_proj.weight": [HIDDEN, HIDDEN],
    "h.0.attn.c_proj.bias": [HIDDEN],
    "h.0.ln_2.weight": [HIDDEN],
    "h.0.ln_2.bias": [HIDDEN],
    "h.0.mlp.c_fc.weight": [HIDDEN, FFN],
    "h.0.mlp.c_fc.bias": [FFN],
    "h.0.mlp.c_proj.weight": [FFN, HIDDEN],
    "h.0.mlp.c_proj.bias": [HIDDEN],
    "ln_f.weight": [HIDDEN],
    "ln_f.bias": [HIDDEN],
}
DIMS = {"layers": 1, "hidden": HIDDEN, "heads": 2, "ffn": FFN, "vocab": VOCAB}

torch.manual_seed(0)
tensors = {name: torch.randn(shape) for name, shape in SHAPES.items()}
tensors["h.0.attn.bias"].fill_(1).tril_()  # the causal mask that published files carry

with tempfile.TemporaryDirectory() as folder:
    source, out = Path(folder, "model.safetensors"), Path(folder, "gpt2")
    save_file(tensors, source)
    made = api.convert(source, out, model="gpt2", dims={**DIMS, "positions": POSITIONS})
    print(f"Converted {made.plan.used} tensors into {made.manifest.totals.tensors}")

    network = load_model(out, check="full")  # device="cuda" for a GPU
    with torch.no_grad():
        logits = network(torch.tensor([[7, 3, 12, 1]])).logits
    print(f"Loaded {type(network).__name__}: logits {list(logits.shape)}, all of them finite")
    assert logits.isfinite().all()
