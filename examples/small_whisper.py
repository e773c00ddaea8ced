"""Make a small Whisper with random weights, and record what transformers computes with it.

    python examples/small_whisper.py OUT

writes the same weights as ``OUT/model.safetensors``, with the names that transformers saves, and as
``OUT/small.pt``, as openai/whisper publishes them; ``OUT/dims.yaml``, what the model's dims are;
and ``OUT/golden.safetensors``: the spectrograms and tokens that went in (``input.``) and what came
out (``output.``) and lay between. Nothing is downloaded; needs ``transformers``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

HEAD = "proj_out.weight"
POSITION_TABLE = "model.encoder.embed_positions.weight"
# From the names of transformers to those of openai/whisper's model.py, from top to bottom.
RENAMES = (
    ("model.encoder.layer_norm", "encoder.ln_post"),
    ("model.decoder.layer_norm", "decoder.ln"),
    ("model.", ""),
    ("embed_positions.weight", "positional_embedding"),
    ("embed_tokens", "token_embedding"),
    (".layers.", ".blocks."),
    ("self_attn_layer_norm", "attn_ln"),
    ("encoder_attn_layer_norm", "cross_attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("encoder_attn", "cross_attn"),
    ("self_attn", "attn"),
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("out_proj", "out"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
)


@dataclass(frozen=True)
class Size:
    """The dims of a model, by the names that ``rules/whisper.yaml`` has for them."""

    encoder_layers: int = 2
    decoder_layers: int = 3
    hidden: int = 24
    encoder_heads: int = 4
    decoder_heads: int = 3
    encoder_ffn: int = 96
    decoder_ffn: int = 96
    mels: int = 80
    encoder_positions: int = 50
    decoder_positions: int = 14
    vocab: int = 60


def original(size: Size, seed: int) -> Any:
    """Return the model of transformers, in eval mode, with random weights that all matter.

    The position table of the encoder is the fixed one. On the meta device it has no values.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    model: Any = WhisperForConditionalGeneration(WhisperConfig(**_settings(size)))
    model.eval().requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        if name != POSITION_TABLE and not tensor.is_meta:
            tensor.copy_(_values(name, tensor, generator))
    return model


def _settings(size: Size) -> dict[str, Any]:
    return {
        "encoder_layers": size.encoder_layers,
        "decoder_layers": size.decoder_layers,
        "d_model": size.hidden,
        "encoder_attention_heads": size.encoder_heads,
        "decoder_attention_heads": size.decoder_heads,
        "encoder_ffn_dim": size.encoder_ffn,
        "decoder_ffn_dim": size.decoder_ffn,
        "num_mel_bins": size.mels,
        "max_source_positions": size.encoder_positions,
        "max_target_positions": size.decoder_positions,
        "vocab_size": size.vocab,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
        "decoder_start_token_id": 0,
    }


def _values(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    values = torch.randn(tensor.shape, generator=generator)
    if tensor.ndim == 1:
        return 0.2 * values + ("norm" in name and name.endswith("weight"))
    return values * (0.6 if "embed" in name else 1.3 / tensor[0].numel() ** 0.5)


def stored(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that transformers saves: all but the head, which is tied."""
    return {name: tensor for name, tensor in model.state_dict().items() if name != HEAD}


def as_openai(name: str) -> str:
    """Return the name that openai/whisper has for a tensor of transformers."""
    for theirs, ours in RENAMES:
        name = name.replace(theirs, ours)
    return name


def inputs(size: Size, seed: int) -> tuple[Tensor, Tensor]:
    """Return spectrograms [2, M, F] of the range that log-mels have, and tokens [2, 9]."""
    generator = torch.Generator().manual_seed(seed)
    mels = torch.rand(2, size.mels, 2 * size.encoder_positions, generator=generator) * 2 - 0.8
    return mels, torch.randint(size.vocab, (2, 9), generator=generator)


def record(model: Any, mels: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """Run a model and return its inputs with what it computed."""
    encoder, decoder = model.model.encoder, model.model.decoder
    watched = {
        "encoder.layer0.attn.output": encoder.layers[0].self_attn,
        "encoder.layer0.output": encoder.layers[0],
        "decoder.layer0.attn.output": decoder.layers[0].self_attn,
        "decoder.layer0.cross_attn.output": decoder.layers[0].encoder_attn,
        "decoder.layer0.output": decoder.layers[0],
        "output.encoder_hidden_state": encoder,
        "output.last_hidden_state": decoder,
    }
    seen = {"input.mels": mels, "input.tokens": tokens}
    for name, module in watched.items():
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.update({name: _first(output)})
        )
    output = model(input_features=mels, decoder_input_ids=tokens, use_cache=False)
    return {**seen, "output.logits": output.logits}


def _first(output: Any) -> Tensor:
    tensor: Tensor = output if isinstance(output, Tensor) else output[0]
    return tensor.contiguous()


def openai_checkpoint(size: Size, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what a file of openai/whisper holds: dims of its own, and the weights."""
    dims = {
        "n_mels": size.mels,
        "n_vocab": size.vocab,
        "n_audio_ctx": size.encoder_positions,
        "n_audio_state": size.hidden,
        "n_audio_head": size.encoder_heads,
        "n_audio_layer": size.encoder_layers,
        "n_text_ctx": size.decoder_positions,
        "n_text_state": size.hidden,
        "n_text_head": size.decoder_heads,
        "n_text_layer": size.decoder_layers,
    }
    weights = {as_openai(name): tensor for name, tensor in tensors.items()}
    return {"dims": dims, "model_state_dict": weights}


def write(out: Path, size: Size, seed: int) -> list[str]:
    """Write the files of one model into the folder ``out``, and return their names."""
    model = original(size, seed)
    tensors = {name: tensor.contiguous() for name, tensor in stored(model).items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    torch.save(openai_checkpoint(size, tensors), out / "small.pt")
    save_file(record(model, *inputs(size, seed + 1)), out / "golden.safetensors")
    lines = (f"{name}: {value}\n" for name, value in asdict(size).items())
    (out / "dims.yaml").write_text("".join(lines), "utf-8")
    return ["model.safetensors", "small.pt", "golden.safetensors", "dims.yaml"]


def main(arguments: Sequence[str]) -> int:
    """Write a small model into the folder that is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="the folder to write into")
    parser.add_argument("--seed", type=int, default=91)
    chosen = parser.parse_args(arguments)
    print(f"{chosen.out}: {', '.join(write(chosen.out, Size(), chosen.seed))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
