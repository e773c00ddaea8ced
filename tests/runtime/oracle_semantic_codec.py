"""The semantic codec from the facts: canonical weights in plain torch, and what was recorded.

The facts: FACTS-s2mel-and-audio.md, section 4.
"""

from __future__ import annotations

from oracle_bigvgan import folded
from parity import watching
from reference_weights import Tensors, renamed

from converter.runtime.networks.semantic_codec import SemanticCodec

RENAMES = (
    ("quantizer.quantizers.0.in_project", "quantizer.in_proj"),
    ("quantizer.quantizers.0.out_project", "quantizer.out_proj"),
    ("quantizer.quantizers.0.codebook", "quantizer.codebook"),
    ("coder.0.embed", "coder.input_conv"),
    ("coder.0.norm", "coder.input_norm"),
    ("coder.0.final_layer_norm", "coder.final_norm"),
    ("coder.0.convnext.", "coder.blocks."),
    ("coder.1.", "coder.out_proj."),
    (".dwconv", ".depthwise"),
    (".pwconv", ".fc"),
    (".gamma", ".layer_scale"),
)


def semantic_codec_weights(source: Tensors) -> Tensors:
    """Fold both projections of the quantizer; the rest gets other names."""
    return folded(renamed(source, RENAMES))


def without_decoder(weights: Tensors) -> Tensors:
    """Return what inference needs."""
    return {name: t for name, t in weights.items() if not name.startswith("decoder.")}


def semantic_codec_outputs(network: SemanticCodec, recorded: Tensors) -> Tensors:
    """Return all that was recorded of the codec, as ``network`` computes it.

    Without a decoder there is no ``output.decoder``.
    """
    device = network.quantizer.codebook.weight.device
    features, codes = (recorded[f"input.{name}"].to(device) for name in ("feat", "vq2emb.codes"))
    paths = {
        "trace.encoder.backbone": "encoder.final_norm",
        "output.encoder": "encoder",
        "output.latent": "quantizer.in_proj",
    }
    with watching(network, paths) as got:
        encoded = network.encode(features)
    got["output.codes"] = encoded.codes
    got["output.quantized"] = encoded.quantized
    got["output.vq2emb"] = network.vq2emb(codes)
    if network.decoder is not None:
        got["output.decoder"] = network.decode(encoded.quantized)
    return got
