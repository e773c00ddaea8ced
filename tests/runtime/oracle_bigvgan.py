"""BigVGAN from the facts: canonical weights in plain torch, and what the original recorded.

The facts: FACTS-s2mel-and-audio.md, section 2.
"""

from __future__ import annotations

import re

from parity import watching
from reference_weights import Tensors, fold_weight_norm, renamed

from converter.runtime.networks.bigvgan import BigVGAN

BLOCKS = 3  # residual blocks of a stage, which lie one after another in the original
RENAMES = (
    ("conv_pre", "input_conv"),
    ("conv_post", "out_conv"),
    ("activation_post", "final_activation"),
    (".act.", "."),
    (".lowpass.", "."),
)


def bigvgan_weights(source: Tensors) -> Tensors:
    """Fold every weight norm, and give each stage its convolution and its blocks."""
    weights: Tensors = {}
    for name, tensor in renamed(source, (("generator.", ""), *RENAMES)).items():
        name = re.sub(r"^ups\.(\d+)\.0", r"stages.\1.upsample", name)
        block = re.match(r"resblocks\.(\d+)", name)
        if block is not None:
            stage, place = divmod(int(block[1]), BLOCKS)
            name = f"stages.{stage}.blocks.{place}{name[block.end() :]}"
        weights[name] = tensor
    return folded(weights)


def folded(weights: Tensors) -> Tensors:
    """Replace every pair of ``weight_g`` and ``weight_v`` by the weight they stand for."""
    pairs = [name.removesuffix("_g") for name in weights if name.endswith(".weight_g")]
    kept = {name: t for name, t in weights.items() if not name.endswith((".weight_g", ".weight_v"))}
    return kept | {
        name: fold_weight_norm(weights[f"{name}_g"], weights[f"{name}_v"]) for name in pairs
    }


def bigvgan_outputs(network: BigVGAN, recorded: Tensors) -> Tensors:
    """Return all that was recorded of the vocoder, as ``network`` computes it."""
    paths = {
        "conv_pre": "input_conv",
        **{f"ups{i}": f"stages.{i}.upsample" for i in range(len(network.stages))},
        "resblock0": "stages.0.blocks.0",
        "resblock0.act0": "stages.0.blocks.0.activations.0",
        "activation_post": "final_activation",
        "conv_post": "out_conv",
    }
    mel = recorded["input.mel"].to(network.input_conv.weight.device)
    with watching(network, {f"trace.{name}": path for name, path in paths.items()}) as got:
        got["output.wave"] = network(mel)
    return got
