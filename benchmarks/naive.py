"""What people write instead: load all, loop, save all. Nothing is hashed, nothing is checked.

python naive.py model.safetensors out.safetensors HIDDEN KV
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

NAMES = (
    ("model.embed_tokens.", "token_embedding."),
    ("model.norm.", "final_norm."),
    ("model.layers.", "blocks."),
    (".input_layernorm.", ".attention_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
    (".self_attn.o_proj.", ".attention.out_proj."),
    (".self_attn.qkv_proj.", ".attention.qkv_proj."),
    (".mlp.", ".ffn."),
    (".gamma", ".weight"),
    (".beta", ".bias"),
)


def renamed(name: str) -> str:
    """Return the name that a tensor gets."""
    for old, new in NAMES:
        name = name.replace(old, new)
    return name


def convert(tensors: dict[str, Tensor], hidden: int, kv: int) -> dict[str, Tensor]:
    """Rename, split and fold."""
    made: dict[str, Tensor] = {}
    for source, tensor in tensors.items():
        name = renamed(source)
        if source == "position_ids" or name.endswith(".weight_g"):
            continue
        if name.endswith(".weight_v"):
            gain = tensors[source.replace("weight_v", "weight_g")]
            made[name.replace("weight_v", "weight")] = torch._weight_norm(tensor, gain, 0)
        elif ".qkv_proj." in name:
            # save_file refuses tensors that share memory, hence the clones.
            for part, piece in zip("qkv", torch.split(tensor, [hidden, kv, kv]), strict=True):
                made[name.replace("qkv_proj", f"{part}_proj")] = piece.clone()
        elif ".gate_up_proj." in name:
            gate, up = tensor.chunk(2)
            made[name.replace("gate_up_proj", "gate_proj")] = gate.clone()
            made[name.replace("gate_up_proj", "up_proj")] = up.clone()
        else:
            made[name] = tensor
    return made


if __name__ == "__main__":
    source_path, out_path, hidden_size, kv_size = sys.argv[1:]
    converted = convert(load_file(source_path), int(hidden_size), int(kv_size))
    save_file(converted, out_path, metadata={"format": "pt"})
