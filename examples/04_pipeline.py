"""Convert a whole pipeline at once, load it, and go from a voice and a text to a waveform.

The bundle file ``pipeline.yaml`` names the models and what they must agree on; the checkpoints are
random, so what comes out is noise, but of the right shape. With the published weights the same
lines run on ``convert --bundle indextts2``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from random_sources import make_sources
from torch import Tensor

from converter import api
from converter.runtime import load_bundle
from converter.runtime.networks.flow_matching import solve_flow
from converter.runtime.networks.gpt import decode_greedily, merge_emotion

BUNDLE = Path(__file__).with_name("pipeline.yaml")

FRAMES_PER_CODE = 1.72  # of the mel
CODES = 20  # a trained gpt says itself when it is done

Networks = dict[str, Any]  # by the words of the bundle file


def hear(networks: Networks, features: Tensor) -> Tensor:
    """Return the semantic features [B, T, D] of a recording's mel features [B, T, I]."""
    normalised: Tensor = networks["w2v_stats"](networks["w2v"](features))
    return normalised


def condition(networks: Networks, who: str, semantic: Tensor) -> Tensor:
    """Return the latents [B, N, D] that the conditioner ``who`` hears in a recording."""
    heard = networks[f"{who}_conformer"](semantic)
    latents: Tensor = networks[f"{who}_perceiver"](heard.encoded, heard.mask)
    return latents


def feel(networks: Networks, semantic: Tensor) -> Tensor:
    """Return the emotion [B, D] of a recording, as gpt takes it."""
    vector: Tensor = networks["gpt"].emotion_vector(condition(networks, "emotion", semantic)[:, 0])
    return vector


def say(
    networks: Networks, text: Tensor, speaker: Tensor, emotional: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the text in codes [1, M], and in what is to be added to them [1, M, D]."""
    latents = condition(networks, "speaker", speaker)
    emotion = merge_emotion(feel(networks, speaker), feel(networks, emotional), alpha=0.6)
    codes = decode_greedily(networks["gpt"], latents, emotion, text, limit=CODES)
    states = networks["gpt"](latents, emotion, text, codes).mel_latent
    return codes, networks["gpt_layer"](states)


def speak(
    networks: Networks, codes: Tensor, more: Tensor, speaker: Tensor, style: Tensor, mel: Tensor
) -> Tensor:
    """Return the mel [1, M, T] of codes, in the voice of the recording whose mel is ``mel``."""
    codec, regulator = networks["codec"], networks["length_regulator"]
    frames = int(codes.shape[1] * FRAMES_PER_CODE)
    before = mel.shape[-1]
    prompt = regulator(codec(speaker).quantized, torch.tensor([before]))
    content = regulator(codec.vq2emb(codes).mT + more, torch.tensor([frames]))
    whole = torch.cat([prompt, content], dim=1)
    solved = solve_flow(
        networks["dit"], whole, torch.tensor([before + frames]), mel, style, steps=5
    )
    return solved[..., before:]


@torch.no_grad()
def main(folder: Path) -> None:
    """Make, convert, load, run."""
    make_sources(BUNDLE, folder / "checkpoints")
    converted = api.convert_bundle(str(BUNDLE), folder / "checkpoints", folder / "converted")
    agreed = len(converted.record.agreed)
    print(f"Converted {len(converted.manifests)} models from {len(converted.record.sources)} files")
    print(f"  every tensor has its member, {agreed} conditions between members hold")

    networks = load_bundle(folder / "converted", check="full")
    print("Loaded, the sha256 of every tensor checked")

    # What a front end makes of two recordings, one for the voice and one for its emotion. Widths
    # are those of the bundle: 12 stacked mel bands, 16 bands for the style, 8 for the mel.
    generator = torch.Generator().manual_seed(1)
    voice, emotional = (torch.randn(1, n, 12, generator=generator) for n in (40, 30))
    bands = torch.randn(1, 80, 16, generator=generator)
    mel = torch.randn(1, 8, 69, generator=generator)
    text = torch.randint(2, 41, (1, 9), generator=generator)

    speaker = hear(networks, voice)
    style = networks["campplus"](bands)
    codes, more = say(networks, text, speaker, hear(networks, emotional))
    spoken = speak(networks, codes, more, speaker, style, mel)
    wave = networks["vocoder"](spoken)

    shown = {
        "semantic features": speaker,
        "style": style,
        "codes": codes,
        "mel": spoken,
        "waveform": wave,
    }
    for name, tensor in shown.items():
        print(f"  {name:<18}{list(tensor.shape)}")
    hop = converted.manifests["vocoder"].model.audio["hop_length"]
    assert wave.shape[-1] == spoken.shape[-1] * int(str(hop))
    assert all(tensor.isfinite().all() for tensor in shown.values())
    print("From features to a waveform: shapes meet, every value is finite")


with tempfile.TemporaryDirectory() as folder:
    main(Path(folder))
