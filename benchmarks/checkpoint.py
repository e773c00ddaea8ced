"""The checkpoint that the benches convert, as data: names, shapes, and the rules that fit.

A language model with fused projections, as Phi-3 names them, so that transformers and mergekit
know most of it too; a vocoder with weight normalisation, to fold; and many small tensors with
legacy names. What is normal in the trunk of one real model each, in one file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]

ELEMENT_BYTES = {"BF16": 2, "F32": 4, "I64": 8}
HEAD_DIM = 64
KERNEL = 7
POSITIONS = 4096

# How many bytes of a checkpoint are there to be folded, in percent.
FOLD_PERCENT = {"mixed": 8, "folds": 70}


class SizeError(ValueError):
    """No checkpoint of this kind is so small."""


@dataclass(frozen=True)
class Dims:
    """The dims of a checkpoint; those that the rule file states."""

    layers: int
    hidden: int
    kv: int
    ffn: int
    vocab: int
    convs: int
    channels: int
    kernel: int
    blocks: int
    width: int


@dataclass(frozen=True)
class TensorShape:
    """The dtype and shape of a tensor."""

    dtype: str
    shape: Shape

    @property
    def size_bytes(self) -> int:
        """Its size in bytes."""
        return prod(self.shape) * ELEMENT_BYTES[self.dtype]


# From this many bytes on, these dims; the number of layers and convolutions follows from the size.
_SCALES: tuple[tuple[int, Dims], ...] = (
    (12_000_000_000, Dims(0, 4096, 1024, 11008, 32000, 0, 1024, KERNEL, 2000, 256)),
    (6_000_000_000, Dims(0, 3072, 768, 8192, 32000, 0, 1024, KERNEL, 1500, 256)),
    (1_500_000_000, Dims(0, 1536, 384, 4096, 32000, 0, 1024, KERNEL, 1000, 256)),
    (200_000_000, Dims(0, 768, 256, 2048, 16000, 0, 512, KERNEL, 300, 128)),
    (0, Dims(0, 128, 64, 384, 512, 0, 64, KERNEL, 20, 64)),
)


def dims_for(size_bytes: int, kind: str = "mixed") -> Dims:
    """Return dims of a checkpoint of ``size_bytes``, exact to one row of its embeddings.

    ``kind`` is ``mixed``, or ``folds`` where most of it is there to be folded. Raises
    SizeError when that is less than one layer.
    """
    scale = next(dims for least, dims in _SCALES if size_bytes >= least)
    one_conv = _bytes_of(_conv_tensors(scale, 0))
    convs = max(1, round(size_bytes * FOLD_PERCENT[kind] / 100 / one_conv))
    empty = Dims(**{**asdict(scale), "convs": convs})
    one_layer = _bytes_of(_layer_tensors(scale, 0))
    layers, rest = divmod(size_bytes - _bytes_of(tensors_of(empty)), one_layer)
    if layers < 1:
        raise SizeError(f"a checkpoint of {size_bytes:,} bytes is too small to be one of these")
    row = 2 * ELEMENT_BYTES["F32"] * scale.hidden  # one word, in the embedding and in the head
    vocab = scale.vocab + rest // row
    return Dims(**{**asdict(empty), "layers": layers, "vocab": vocab})


def tensors_of(dims: Dims) -> Mapping[str, TensorShape]:
    """Return name → dtype and shape of every tensor, in the order in which save_file writes."""
    found = {
        "model.embed_tokens.weight": _f32(dims.vocab, dims.hidden),
        "model.norm.weight": _f32(dims.hidden),
        "lm_head.weight": _f32(dims.vocab, dims.hidden),
        "position_ids": TensorShape("I64", (1, POSITIONS)),
    }
    for layer in range(dims.layers):
        found |= _layer_tensors(dims, layer)
    for conv in range(dims.convs):
        found |= _conv_tensors(dims, conv)
    for block in range(dims.blocks):
        found[f"frontend.blocks.{block}.norm.gamma"] = _f32(dims.width)
        found[f"frontend.blocks.{block}.norm.beta"] = _f32(dims.width)
    return dict(sorted(found.items(), key=lambda item: (item[1].dtype == "F32", item[0])))


def _layer_tensors(dims: Dims, layer: int) -> dict[str, TensorShape]:
    prefix = f"model.layers.{layer}."
    hidden, kv, ffn = dims.hidden, dims.kv, dims.ffn
    return {
        f"{prefix}input_layernorm.weight": _f32(hidden),
        f"{prefix}self_attn.qkv_proj.weight": _f32(hidden + 2 * kv, hidden),
        f"{prefix}self_attn.o_proj.weight": _f32(hidden, hidden),
        f"{prefix}post_attention_layernorm.weight": _f32(hidden),
        f"{prefix}mlp.gate_up_proj.weight": _f32(2 * ffn, hidden),
        f"{prefix}mlp.down_proj.weight": _f32(hidden, ffn),
    }


def _conv_tensors(dims: Dims, conv: int) -> dict[str, TensorShape]:
    prefix = f"vocoder.convs.{conv}."
    return {
        f"{prefix}weight_g": _f32(dims.channels, 1, 1),
        f"{prefix}weight_v": _f32(dims.channels, dims.channels, dims.kernel),
        f"{prefix}bias": _f32(dims.channels),
    }


def _f32(*shape: int) -> TensorShape:
    return TensorShape("F32", shape)


def _bytes_of(tensors: Mapping[str, TensorShape]) -> int:
    return sum(tensor.size_bytes for tensor in tensors.values())


def encode_header(tensors: Mapping[str, TensorShape]) -> bytes:
    """Return the first bytes of a safetensors file: the length of the header, and the header."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, tensor in tensors.items():
        end = begin + tensor.size_bytes
        entries[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def rules_text(dims: Dims) -> str:
    """Return the rule file of a checkpoint with these dims."""
    stated = ", ".join(f"{name}: {value}" for name, value in asdict(dims).items())
    return _RULES.replace("DIMS", stated)


def config_text(dims: Dims) -> str:
    """Return the ``config.json`` with which transformers and mergekit take it for a Phi-3."""
    config = {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "hidden_size": dims.hidden,
        "intermediate_size": dims.ffn,
        "num_hidden_layers": dims.layers,
        "num_attention_heads": dims.hidden // HEAD_DIM,
        "num_key_value_heads": dims.kv // HEAD_DIM,
        "vocab_size": dims.vocab,
        "max_position_embeddings": POSITIONS,
        "original_max_position_embeddings": POSITIONS,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    return json.dumps(config, indent=2) + "\n"


_RULES = """\
# yaml-language-server: $schema=../schemas/rules.schema.json
format: 1
model: benchmark
title: A language model with a vocoder, made up to be measured
origin: benchmarks/checkpoint.py
dtypes: [F32]
dims: {DIMS}
index: {i: layers, n: convs, s: blocks}
sets:
  norm: {input_layernorm: attention_norm, post_attention_layernorm: ffn_norm}
  leaf: {gamma: weight, beta: bias}
rules:
  - from: model.embed_tokens.weight
    to: {token_embedding.weight: [vocab, hidden]}
  - from: model.layers.{i}.{norm}.weight
    to:
      blocks.{i}.{norm}.weight: [hidden]
  - from: model.layers.{i}.self_attn.qkv_proj.weight
    steps:
      - split: {dim: 0, sizes: [hidden, kv, kv]}
    to:
      blocks.{i}.attention.q_proj.weight: [hidden, hidden]
      blocks.{i}.attention.k_proj.weight: [kv, hidden]
      blocks.{i}.attention.v_proj.weight: [kv, hidden]
  - from: model.layers.{i}.self_attn.o_proj.weight
    to:
      blocks.{i}.attention.out_proj.weight: [hidden, hidden]
  - from: model.layers.{i}.mlp.gate_up_proj.weight
    steps:
      - chunk: {dim: 0, chunks: 2}
    to:
      blocks.{i}.ffn.gate_proj.weight: [ffn, hidden]
      blocks.{i}.ffn.up_proj.weight: [ffn, hidden]
  - from: model.layers.{i}.mlp.down_proj.weight
    to:
      blocks.{i}.ffn.down_proj.weight: [hidden, ffn]
  - from: model.norm.weight
    to: {final_norm.weight: [hidden]}
  - from: lm_head.weight
    to: {lm_head.weight: [vocab, hidden]}
  - from: ["vocoder.convs.{n}.weight_g", "vocoder.convs.{n}.weight_v"]
    steps:
      - fold_weight_norm: {dim: 0}
    to:
      vocoder.convs.{n}.weight: [channels, channels, kernel]
  - from: vocoder.convs.{n}.bias
    to:
      vocoder.convs.{n}.bias: [channels]
  - from: frontend.blocks.{s}.norm.{leaf}
    to:
      frontend.blocks.{s}.norm.{leaf}: [width]
drop:
  - name: position_ids
    expect: arange
    because: position ramp, rebuilt by the network
"""
