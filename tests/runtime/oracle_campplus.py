"""CAM++ from the facts: canonical weights in plain torch, and what the original recorded.

The facts: FACTS-s2mel-and-audio.md, section 3. Nothing is computed: tensors get other names.
"""

from __future__ import annotations

import re

import torch.nn.functional as F
from parity import watching
from reference_weights import Tensors
from torch import Tensor, nn

from converter.runtime.networks.campplus import CAMPPlus

# The original counts stages, blocks and layers of the TDNN from 1; {-n} is a number less 1.
RENAMES = (
    (r"^head\.layer(\d+)\.(\d+)\.shortcut\.0", r"head.stages.{-\1}.blocks.\2.shortcut.conv"),
    (r"^head\.layer(\d+)\.(\d+)\.shortcut\.1", r"head.stages.{-\1}.blocks.\2.shortcut.norm"),
    (r"^head\.layer(\d+)\.(\d+)\.", r"head.stages.{-\1}.blocks.\2."),
    (r"^head(.*)\.bn(\d)", r"head\1.norm\2"),
    (r"^xvector\.tdnn\.linear", "tdnn.conv"),
    (r"^xvector\.tdnn\.nonlinear\.batchnorm", "tdnn.norm"),
    (r"^xvector\.out_nonlinear\.batchnorm", "final_norm"),
    (r"^xvector\.dense\.linear", "embedding.conv"),
    (r"^xvector\.dense\.nonlinear\.batchnorm", "embedding.norm"),
    (r"^xvector\.transit(\d+)\.linear", r"blocks.{-\1}.transition.conv"),
    (r"^xvector\.transit(\d+)\.nonlinear\.batchnorm", r"blocks.{-\1}.transition.norm"),
    (r"^xvector\.block(\d+)\.tdnnd(\d+)\.", r"blocks.{-\1}.layers.{-\2}."),
    (r"\.nonlinear(\d)\.batchnorm", r".norm\1"),
    (r"\.cam_layer\.linear_local", ".conv"),
    (r"\.cam_layer\.linear(\d)", r".mask.fc\1"),
    (r"(layers\.\{-\d+\})\.linear1", r"\1.in_proj"),
    (r"\{-(\d+)\}", lambda match: str(int(match[1]) - 1)),
)


def campplus_weights(source: Tensors) -> Tensors:
    """Return the encoder without the counters of its batch norms."""
    weights: Tensors = {}
    for name, tensor in source.items():
        if name.endswith(".num_batches_tracked"):
            continue
        for pattern, new in RENAMES:
            name = re.sub(pattern, new, name)
        assert name not in weights
        weights[name] = tensor
    return weights


def campplus_outputs(network: CAMPPlus, recorded: Tensors) -> Tensors:
    """Return all that was recorded of the encoder, as ``network`` computes it."""
    paths = {"tdnn": "tdnn", "block1_first": "blocks.0.layers.0"}
    paths |= {f"transit{b + 1}": f"blocks.{b}.transition" for b in range(len(network.blocks))}
    features = recorded["input.feat"].to(network.tdnn.conv.weight.device)
    with watching(network, {f"trace.{name}": path for name, path in paths.items()}) as got:

        def keep_statistics(_: nn.Module, inputs: tuple[Tensor]) -> None:
            got["trace.stats"] = inputs[0].squeeze(-1)

        with network.embedding.register_forward_pre_hook(keep_statistics):
            got["output.embedding"] = network(features)
    got["trace.tdnn"] = F.relu(got["trace.tdnn"])  # recorded behind its activation
    return got
