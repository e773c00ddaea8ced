"""Make a small GPT-NeoX with random weights, and record what transformers computes with it.

    python examples/small_gpt_neox.py OUT

writes ``OUT/checkpoint.safetensors`` in the published layout, with the buffers that published
files carry, and ``OUT/golden.safetensors``: the tokens that went in (``input.``), what modules
gave, and the logits that came out (``output.``). Nothing is downloaded; needs ``transformers``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from parity import watching
from safetensors.torch import save_file
from torch import Tensor

TOKENS = (2, 11)
WATCHED = ("input_layernorm", "attention.dense", "post_attention_layernorm", "mlp")


@dataclass(frozen=True)
class Size:
    """The settings of a model, by the names that transformers has for them, and its seed."""

    vocab_size: int = 80
    hidden_size: int = 48
    num_hidden_layers: int = 2
    num_attention_heads: int = 3
    intermediate_size: int = 56
    max_position_embeddings: int = 24
    rotary_pct: float = 0.25
    rotary_emb_base: float = 10000.0
    use_parallel_residual: bool = True
    hidden_act: str = "gelu"
    seed: int = 7


def original(size: Size) -> Any:
    """Return the model of transformers, in eval mode, with random weights that all matter."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    settings = asdict(size)
    generator = torch.Generator().manual_seed(settings.pop("seed"))
    model: Any = GPTNeoXForCausalLM(GPTNeoXConfig(**settings))
    model.eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        random = torch.randn(tensor.shape, generator=generator)
        is_norm = "norm" in name and name.endswith("weight")
        tensor.copy_(0.2 * random + is_norm if tensor.ndim == 1 else random * _spread(tensor))
    return model


def _spread(matrix: Tensor) -> float:
    """Return a deviation that keeps activations about as large as they are."""
    return float(1.5 / matrix.shape[1] ** 0.5)


def published(model: Any) -> dict[str, Tensor]:
    """Return the tensors of a model by the names that its published files have, buffers included.

    Earlier versions of transformers saved the causal mask, the constant that stands where it is
    zero, and the rotary frequencies, once per layer.
    """
    config = model.config
    tensors = {
        "embed_out.weight" if name == "lm_head.weight" else name: tensor
        for name, tensor in model.state_dict().items()
    }
    positions = config.max_position_embeddings
    for layer in range(config.num_hidden_layers):
        attention = f"gpt_neox.layers.{layer}.attention"
        mask = torch.ones(positions, positions, dtype=torch.bool).tril()
        tensors[f"{attention}.bias"] = mask[None, None]
        tensors[f"{attention}.masked_bias"] = torch.tensor(-1e9)
        tensors[f"{attention}.rotary_emb.inv_freq"] = model.gpt_neox.rotary_emb.inv_freq.clone()
    return tensors


def record(model: Any, seed: int) -> dict[str, Tensor]:
    """Run a model on random tokens [2, 11]; return them, and what its modules gave."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(model.config.vocab_size, TOKENS, generator=generator)
    layers = [f"gpt_neox.layers.{layer}" for layer in range(model.config.num_hidden_layers)]
    paths = [f"{layer}.{part}" for layer in layers for part in WATCHED]
    paths += [*layers, "gpt_neox.final_layer_norm"]
    with watching(model, {f"{path}.output": path for path in paths}) as seen:
        logits = model(ids).logits
    return {"input.input_ids": ids, **seen, "output.logits": logits}


def write(out: Path, size: Size) -> None:
    """Write the checkpoint, the recording and the settings of a model into the folder ``out``."""
    import transformers

    model = original(size)
    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in published(model).items()}
    save_file(tensors, out / "checkpoint.safetensors", {"format": "pt"})
    golden = {name: tensor.contiguous() for name, tensor in record(model, size.seed).items()}
    save_file(golden, out / "golden.safetensors")
    facts = {"upstream": f"transformers {transformers.__version__}", "constructor": asdict(size)}
    (out / "config.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def main(arguments: Sequence[str]) -> int:
    """Write a small model into the folder that is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="the folder to write into")
    parser.add_argument("--seed", type=int, default=Size.seed)
    chosen = parser.parse_args(arguments)
    write(chosen.out, Size(seed=chosen.seed))
    print(f"{chosen.out}: checkpoint.safetensors, golden.safetensors, config.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
