"""The golden Soprano decoder: its canonical tensors, by the facts alone, and its parity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from parity import Difference, compare, watching
from reference_weights import Tensors, renamed
from torch import Tensor

from converter.runtime.networks.soprano_decoder import SopranoDecoder

TOLERANCE = 1e-5

RENAMES = (
    ("decoder.embed", "input_conv"),
    ("decoder.norm", "input_norm"),
    ("decoder.final_layer_norm", "final_norm"),
    ("decoder.convnext.", "blocks."),
    ("dwconv", "depthwise"),
    ("pwconv", "fc"),
    (".gamma", ".layer_scale"),
    ("head.out", "spectral_head"),
    ("head.istft.window", "window"),
)


def soprano_decoder_weights(source: Tensors) -> Tensors:
    """Rename a decoder; its tensors stay as they are."""
    return renamed(source, RENAMES)


@torch.no_grad()
def compare_soprano_decoder(
    network: SopranoDecoder, recorded: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> list[Difference]:
    """Compare a decoder with the golden set ``soprano-decoder``."""
    states = recorded["input.hidden_states"].to(network.window.device)
    paths = {
        "layer0.output": "blocks.0",
        "backbone.output": "final_norm",
        "head.out.output": "spectral_head",
    }
    with watching(network, paths) as got:
        got["output.waveform"] = network(states)
    for name in ("layer0.output", "backbone.output"):
        got[name] = got[name].mT  # recorded as [B, D, F]
    return compare(got, recorded, tolerance)
