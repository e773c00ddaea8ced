"""Golden checkpoints under canonical names, in plain torch, written from the facts alone.

Nothing here knows the rule language, so the converter and these functions check each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors.torch import load_file
from torch import Tensor

from converter.manifest import Dim, ModelRecord, Scalar

Tensors: TypeAlias = dict[str, Tensor]

GOLDEN = Path(__file__).parents[1] / "golden"
HEADERS = Path(__file__).parents[1] / "headers"
ESTIMATOR = "net.cfm.estimator."

BERT_CONVENTIONS: dict[str, Scalar] = {
    "attention": "bidirectional",
    "norm": "layer_norm",
    "norm_position": "post",
    "norm_eps": 1e-12,
    "activation": "gelu_erf",
    "position_embedding": "learned",
}
DIT_CONVENTIONS: dict[str, Scalar] = {
    "attention": "bidirectional",
    "rope": "interleaved",
    "rope_base": 10000,
    "norm": "rms_norm",
    "norm_eps": 1e-5,
    "adaptive_norm": "weight_bias",
    "activation": "silu",
    "skip": "uvit",
    "input_order": "x_prompt_cond_style",
    "timestep_embedding": "cos_sin",
    "timestep_scale": 1000,
    "wavenet_padding": "reflect",
    "wavenet_gate": "tanh_sigmoid",
    "wavenet_output": "residual_skip",
    "final_modulation": "shift_scale",
    "final_norm_eps": 1e-6,
}
# bert-base-uncased: FACTS-gpt-and-language.md, section 5.
BERT_DIMS: dict[str, int] = {
    "layers": 12,
    "hidden": 768,
    "heads": 12,
    "ffn": 3072,
    "vocab": 30522,
    "positions": 512,
    "token_types": 2,
    "pooler": 1,
    "mlm_head": 1,
    "nsp_head": 1,
}
# The published IndexTTS2 S2Mel: FACTS-s2mel-and-audio.md, section 1.
DIT_DIMS: dict[str, int] = {
    "layers": 13,
    "hidden": 512,
    "heads": 8,
    "ffn": 1536,
    "mels": 80,
    "style": 192,
    "content": 512,
    "timestep_freqs": 128,
    "wavenet_hidden": 512,
    "wavenet_layers": 8,
    "wavenet_kernel": 5,
    "wavenet_dilation_rate": 1,
    "positions": 16384,
}
# Renames run from top to bottom, so the longer of two that overlap comes first.
BERT_RENAMES = (
    ("bert.embeddings.word_embeddings", "token_embedding"),
    ("bert.embeddings.position_embeddings", "position_embedding"),
    ("bert.embeddings.token_type_embeddings", "token_type_embedding"),
    ("bert.embeddings.LayerNorm", "embedding_norm"),
    ("bert.encoder.layer.", "layers."),
    ("attention.self.query", "attention.q_proj"),
    ("attention.self.key", "attention.k_proj"),
    ("attention.self.value", "attention.v_proj"),
    ("attention.output.dense", "attention.out_proj"),
    ("attention.output.LayerNorm", "attention_norm"),
    ("intermediate.dense", "ffn.fc1"),
    ("output.dense", "ffn.fc2"),
    ("output.LayerNorm", "ffn_norm"),
    ("bert.pooler", "pooler"),
    ("cls.predictions.transform.dense", "mlm_head.dense"),
    ("cls.predictions.transform.LayerNorm", "mlm_head.norm"),
    ("cls.predictions.bias", "mlm_head.decoder.bias"),
    ("cls.seq_relationship", "nsp_head"),
    (".gamma", ".weight"),
    (".beta", ".bias"),
)
DIT_RENAMES = (
    ("t_embedder2.", "wavenet_timestep_embedder."),
    ("t_embedder.", "timestep_embedder."),
    ("mlp.0.", "fc1."),
    ("mlp.2.", "fc2."),
    ("cond_projection", "cond_proj"),
    ("cond_x_merge_linear", "input_merge"),
    ("skip_in_linear", "skip_proj"),
    ("skip_linear", "long_skip_proj"),
    ("transformer.layers.", "blocks."),
    ("transformer.norm", "norm"),
    ("attention.wo", "attention.out_proj"),
    ("feed_forward.w1", "ffn.gate_proj"),
    ("feed_forward.w2", "ffn.down_proj"),
    ("feed_forward.w3", "ffn.up_proj"),
    ("norm.norm.", "norm."),
    ("norm.project_layer.", "norm.modulation."),
    ("conv1.", "wavenet_in_proj."),
    ("conv2.", "out_conv."),
    ("res_projection", "wavenet_residual_proj"),
    (".conv.conv.", "."),
    ("adaLN_modulation.1.", "modulation."),
)


def golden_tensors(model: str) -> Tensors:
    """Return the recorded inputs, outputs and intermediates of a small original."""
    return load_file(GOLDEN / model / "golden.safetensors")


def golden_checkpoint(model: str) -> Tensors:
    """Return the weights of a small original, under its own names."""
    return load_file(GOLDEN / model / "checkpoint.safetensors")


def header_tensors(name: str) -> Tensors:
    """Return the tensors of a full-size header, without values, on the meta device."""
    header = json.loads((HEADERS / f"{name}.json").read_text())
    return {tensor: torch.empty(entry["shape"], device="meta") for tensor, entry in header.items()}


def record(name: str, dims: Mapping[str, Dim], conventions: Mapping[str, Scalar]) -> ModelRecord:
    """Return what a manifest would say of the model."""
    return ModelRecord(
        name=name, title="", origin="", variant=(), dims=dims, conventions=conventions, audio={}
    )


def bert_dims(model: str, *, heads: bool) -> dict[str, int]:
    """Return the dims of a golden BERT; ``heads`` says whether it has the pre-training heads."""
    config = json.loads((GOLDEN / model / "config.json").read_text())["constructor"]
    return {
        "layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "heads": config["num_attention_heads"],
        "ffn": config["intermediate_size"],
        "vocab": config["vocab_size"],
        "positions": config["max_position_embeddings"],
        "token_types": config["type_vocab_size"],
        "pooler": 1,
        "mlm_head": int(heads),
        "nsp_head": int(heads),
    }


def dit_dims() -> dict[str, int]:
    """Return the dims of the golden S2Mel."""
    config = json.loads((GOLDEN / "s2mel" / "config.json").read_text())
    dit, wavenet = config["s2mel"]["DiT"], config["s2mel"]["wavenet"]
    return {
        "layers": dit["depth"],
        "hidden": dit["hidden_dim"],
        "heads": dit["num_heads"],
        "ffn": config["derived"]["ffn_intermediate"],
        "mels": dit["in_channels"],
        "style": config["s2mel"]["style_encoder"]["dim"],
        "content": dit["content_dim"],
        "timestep_freqs": config["derived"]["timestep_freq_dim"] // 2,
        "wavenet_hidden": wavenet["hidden_dim"],
        "wavenet_layers": wavenet["num_layers"],
        "wavenet_kernel": wavenet["kernel_size"],
        "wavenet_dilation_rate": wavenet["dilation_rate"],
        "positions": config["derived"]["rope_table_len"],
    }


def bert_weights(source: Tensors) -> Tensors:
    """Rename a BERT with legacy names (``bert.``, ``cls.``, ``gamma``, ``beta``) and its heads."""
    weights = renamed(source, BERT_RENAMES)
    weights["mlm_head.decoder.weight"] = weights["token_embedding.weight"]
    return weights


def dit_weights(source: Tensors) -> Tensors:
    """Rename the S2Mel estimator, split ``wqkv``, fold weight norms, drop what is never read."""
    inside = {
        name.removeprefix(ESTIMATOR): tensor
        for name, tensor in source.items()
        if name.startswith(ESTIMATOR)
    }
    for name in ("input_pos", "cond_embedder.weight", "content_mask_embedder.weight"):
        del inside[name]
    layers = sum(name.endswith("wqkv.weight") for name in inside)
    for i in range(layers // 2 + 1):
        for leaf in ("weight", "bias"):
            del inside[f"transformer.layers.{i}.skip_in_linear.{leaf}"]
    for name in [name for name in inside if name.endswith(".weight_g")]:
        stem = name.removesuffix("_g")
        inside[stem] = fold_weight_norm(inside.pop(name), inside.pop(f"{stem}_v"))
    for name in [name for name in inside if name.endswith("wqkv.weight")]:
        thirds = inside.pop(name).chunk(3)
        for word, third in zip(("q", "k", "v"), thirds, strict=True):
            inside[name.replace("wqkv", f"{word}_proj")] = third
    return renamed(inside, DIT_RENAMES)


def fold_weight_norm(g: Tensor, v: Tensor) -> Tensor:
    """Return ``v * g / ||v||`` per slice of dim 0, computed in float64 and rounded once."""
    wide = v.double()
    norm = wide.flatten(1).square().sum(dim=1).sqrt().view(g.shape)
    return (wide * (g.double() / norm)).to(v.dtype)


def random_weights(module: torch.nn.Module, *, seed: int = 0) -> Tensors:
    """Return values for every tensor of ``module``, of a size that keeps activations moderate."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5
        for name, tensor in module.state_dict().items()
    }


def renamed(source: Tensors, renames: tuple[tuple[str, str], ...]) -> Tensors:
    """Return ``source`` with each of the replacements made in every name, from top to bottom."""
    weights: Tensors = {}
    for name, tensor in source.items():
        for old, new in renames:
            name = name.replace(old, new)
        assert name not in weights
        weights[name] = tensor
    return weights
