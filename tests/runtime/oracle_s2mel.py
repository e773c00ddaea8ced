"""What S2Mel holds beside the estimator, from the facts: weights in plain torch, and outputs.

The facts: FACTS-s2mel-and-audio.md, section 1. Nothing is computed: tensors get other names.
"""

from __future__ import annotations

from reference_weights import Tensors

from converter.runtime.networks.gpt_layer import GPTLayer
from converter.runtime.networks.length_regulator import LengthRegulator


def length_regulator_weights(source: Tensors) -> Tensors:
    """Return the regulator: of every three modules the first is a convolution, then a norm."""
    inside = _inside(source, "net.length_regulator.")
    del inside["embedding.weight"], inside["mask_token"]
    weights: Tensors = {}
    for leaf in ("weight", "bias"):
        weights[f"input_proj.{leaf}"] = inside.pop(f"content_in_proj.{leaf}")
        weights[f"out_conv.{leaf}"] = inside.pop(f"model.12.{leaf}")
        for i in range(4):
            weights[f"layers.{i}.conv.{leaf}"] = inside.pop(f"model.{3 * i}.{leaf}")
            weights[f"layers.{i}.norm.{leaf}"] = inside.pop(f"model.{3 * i + 1}.{leaf}")
    assert not inside
    return weights


def gpt_layer_weights(source: Tensors) -> Tensors:
    """Return the three layers."""
    return {f"layers.{name}": t for name, t in _inside(source, "net.gpt_layer.").items()}


def length_regulator_outputs(network: LengthRegulator, recorded: Tensors) -> Tensors:
    """Return what was recorded of the regulator; it gives as many frames as it is asked for."""
    device = network.out_conv.weight.device
    x, lengths = (recorded[f"input.length_regulator.{name}"].to(device) for name in ("x", "ylens"))
    y = network(x, lengths)
    return {"output.length_regulator.y": y, "output.length_regulator.olens": lengths}


def gpt_layer_outputs(network: GPTLayer, recorded: Tensors) -> Tensors:
    """Return what was recorded of the layers, as ``network`` computes it."""
    device = next(network.parameters()).device
    return {"output.gpt_layer.y": network(recorded["input.gpt_layer.x"].to(device))}


def _inside(source: Tensors, prefix: str) -> Tensors:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in source.items()
        if name.startswith(prefix)
    }
