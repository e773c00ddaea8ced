"""Bundles to plan and to convert: the shipped ones on full-size headers, and a small real one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from safetensors.torch import load_file, save_file
from torch import Tensor

from converter import api, resources
from converter.bundle import BundleConversion, BundlePlan

TESTS = Path(__file__).resolve().parent
Headers: TypeAlias = "dict[str, dict[str, Any]]"
Change: TypeAlias = Callable[[Headers], object]
Tensors: TypeAlias = "dict[str, dict[str, Tensor]]"

# The header of every source of the shipped bundles.
HEADERS = {
    "indextts2": {
        "w2v": "w2v-bert-2.0",
        "stats": "wav2vec2bert_stats",
        "codec": "semantic_codec",
        "gpt": "indextts2-gpt",
        "s2mel": "s2mel",
        "campplus": "campplus_cn_common",
        "bigvgan": "bigvgan_generator",
    },
    "soprano": {"lm": "soprano-1.1-80m-lm", "decoder": "soprano-1.1-80m-decoder"},
}
PREFIXES = {"indextts2": {"s2mel": "net."}, "soprano": {}}


def read_headers(bundle: str) -> Headers:
    """Return the full-size header of every source of a shipped bundle."""
    return {
        source: json.loads((TESTS / "headers" / f"{name}.json").read_text())
        for source, name in HEADERS[bundle].items()
    }


def shipped_on_headers(bundle: str, folder: Path, headers: Headers, text: str = "") -> Path:
    """Write headers, and a shipped bundle file (or ``text``) that reads these; return its path."""
    text = text or resources.bundle_file(bundle).read_text()
    for source, header in headers.items():
        (folder / f"{source}.json").write_text(json.dumps(header))
        text = re.sub(
            rf"^  {source}: {{file: [^ ,}}]+",
            f"  {source}: {{file: {source}.json",
            text,
            flags=re.M,
        )
    path = folder / f"{bundle}.yaml"
    path.write_text(text)
    return path


def plan_on_headers(
    bundle: str, folder: Path, change: Change = lambda headers: None, **options: Any
) -> BundlePlan:
    """Plan a shipped bundle on full-size headers, once ``change`` was made to these."""
    headers = read_headers(bundle)
    change(headers)
    path = shipped_on_headers(bundle, folder, headers)
    return api.plan_bundle(str(path), folder, source_prefixes=PREFIXES[bundle], **options)


# A bundle of small originals: four models of one checkpoint, and two that belong together.
SMALL = """
format: 1
bundle: small
title: Small originals
sources:
  gpt: {file: gpt.safetensors}
  lm: {file: lm/model.safetensors}
  decoder: {file: decoder.safetensors}
members:
  speaker_conformer:
    {source: gpt, model: conformer, dims: {layers: 2, hidden: 16, heads: 4, ffn: 28, input: 24}}
  speaker_perceiver:
    source: gpt
    model: perceiver
    dims: {hidden: 32, context: 16, latents: 6, heads: 4, dim_head: 8}
  emotion_conformer:
    source: gpt
    model: conformer
    variant: [emotion]
    dims: {layers: 1, hidden: 16, heads: 2, ffn: 20, input: 24}
  emotion_perceiver:
    source: gpt
    model: perceiver
    variant: [emotion]
    dims: {hidden: 24, context: 16, latents: 1, heads: 2, dim_head: 8}
  gpt: {source: gpt, model: gpt, dims: GPT}
  lm: {source: lm, model: soprano-lm, dims: LM}
  decoder: {source: decoder, model: soprano-decoder, dims: DECODER}
agree:
  - {that: speaker_conformer.hidden == speaker_perceiver.context, because: one reads the other}
  - {that: speaker_perceiver.hidden == gpt.hidden, because: latents are the first tokens}
  - {that: emotion_perceiver.hidden == gpt.semantic, because: gpt projects one emotion vector}
"""
GOLDEN = {"gpt": "gpt", "lm": "soprano-lm", "decoder": "soprano-decoder"}
FILES = {"gpt": "gpt.safetensors", "lm": "lm/model.safetensors", "decoder": "decoder.safetensors"}


def small_text() -> str:
    """Return a bundle file for the small originals."""
    text = SMALL
    for word, model in (("GPT", "gpt"), ("LM", "soprano-lm"), ("DECODER", "soprano-decoder")):
        lines = (TESTS / "models" / model / "golden-dims.yaml").read_text().splitlines()
        dims = ", ".join(line for line in lines if not line.startswith("#"))
        text = re.sub(rf"\b{word}\b", f"{{{dims}}}", text)
    return text


def small_tensors() -> Tensors:
    """Return the small originals, by source."""
    return {
        source: load_file(TESTS / "golden" / name / "checkpoint.safetensors")
        for source, name in GOLDEN.items()
    }


def write_small(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> Path:
    """Write the sources below ``folder / "in"`` and the bundle file beside; return the latter."""
    for source, file in FILES.items():
        path = folder / "in" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors[source]), path)
    path = folder / "small.yaml"
    path.write_text(small_text())
    return path


def convert_small(folder: Path, out: str = "out", **options: Any) -> BundleConversion:
    """Convert the small bundle, whose sources were written, into ``folder / out``."""
    return api.convert_bundle(str(folder / "small.yaml"), folder / "in", folder / out, **options)


def contents(directory: Path) -> dict[str, bytes]:
    """Return every file below a directory."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
