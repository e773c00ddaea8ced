"""The golden perceiver: its canonical tensors by the facts alone, its parity, what breaks it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from mutants import Mutant, gelu_tanh, ignored, replaced, swapped, transposed
from parity import Difference, compare, watching
from reference_weights import Tensors
from torch import Tensor, nn

from converter.runtime.networks.perceiver import Perceiver

TOLERANCE = 1e-5


def perceiver_weights(source: Tensors, prefix: str = "") -> Tensors:
    """Split k from v and value from gate in the perceiver whose names start with ``prefix``."""
    weights = {"latents": source[f"{prefix}latents"]}
    weights["final_norm.weight"] = source[f"{prefix}norm.gamma"]
    for leaf in ("weight", "bias"):
        weights[f"context_proj.{leaf}"] = source[f"{prefix}proj_context.{leaf}"]
    layers = sum(name.startswith(prefix) and name.endswith("to_q.weight") for name in source)
    for i in range(layers):
        old, new = f"{prefix}layers.{i}", f"layers.{i}"
        weights[f"{new}.attention.q_proj.weight"] = source[f"{old}.0.to_q.weight"]
        k, v = source[f"{old}.0.to_kv.weight"].chunk(2)
        weights[f"{new}.attention.k_proj.weight"] = k
        weights[f"{new}.attention.v_proj.weight"] = v
        weights[f"{new}.attention.out_proj.weight"] = source[f"{old}.0.to_out.weight"]
        for leaf in ("weight", "bias"):
            value, gate = source[f"{old}.1.0.{leaf}"].chunk(2)
            weights[f"{new}.ffn.up_proj.{leaf}"] = value
            weights[f"{new}.ffn.gate_proj.{leaf}"] = gate
            weights[f"{new}.ffn.down_proj.{leaf}"] = source[f"{old}.1.2.{leaf}"]
    return weights


@torch.no_grad()
def compare_perceiver(
    network: Perceiver, recorded: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> list[Difference]:
    """Compare a perceiver with the golden set ``perceiver``.

    Its mask counts the latents too, which lie first; its intermediates are of row 0 without mask.
    """
    device = network.latents.device
    context, mask = (recorded[f"input.{name}"].to(device) for name in ("context", "mask"))
    traces = {
        "proj_context.output_row0": "context_proj",
        "layer0.attn.output_row0": "layers.0.attention",
        "layer0.ff.output_row0": "layers.0.ffn",
    }
    with watching(network, traces) as got:
        got["output.latents_row0_nomask"] = network(context[:1])
    got["output.latents"] = network(context, mask[:, len(network.latents) :])
    return compare(got, recorded, tolerance)


def context_alone(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    latents = len(network.get_parameter("latents"))
    for name in ("k_proj", "v_proj"):
        network.get_submodule(f"layers.0.attention.{name}").register_forward_pre_hook(
            lambda _, inputs: inputs[0][:, latents:]
        )


# The originals, for what stands in for them.
normalize, pad = F.normalize, F.pad


def centred_norm(x: Tensor, dim: int, eps: float) -> Tensor:
    centred = x - x.mean(dim, keepdim=True)
    return normalize(centred, dim=dim, eps=eps)


ATTENTION, FFN = "layers.0.attention", "layers.0.ffn"
MUTANTS: dict[str, Mutant] = {
    "query and key swapped": swapped(f"{ATTENTION}.q_proj", f"{ATTENTION}.k_proj"),
    "key and value swapped": swapped(f"{ATTENTION}.k_proj", f"{ATTENTION}.v_proj"),
    "gate before value": swapped(f"{FFN}.gate_proj", f"{FFN}.up_proj"),
    "layers swapped": swapped("layers.0", "layers.1"),
    "norm without weight": ignored("final_norm"),
    "a layer norm": replaced("normalize", centred_norm),
    "gelu by tanh": replaced("gelu", gelu_tanh),
    "silu for gelu": replaced("gelu", F.silu),
    "mask of the latents behind that of the context": replaced(
        "pad", lambda mask, sides, value: pad(mask, sides[::-1], value=value)
    ),
}
SQUARE = {
    f"{name} transposed": transposed(f"{ATTENTION}.{name}_proj.weight")
    for name in ("q", "k", "v", "out")
}
