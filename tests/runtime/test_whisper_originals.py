"""Whisper beside transformers, which computes anew here, and at the sizes that are published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from conversion_fixture import MODELS, described, failing
from original_whisper import ENGLISH, PUBLISHED, published, shapes
from parity import compare
from reference_weights import HEADERS, golden_checkpoint, golden_tensors
from safetensors.torch import save_file
from small_whisper import HEAD, Size, as_openai, inputs, original, record, stored

from converter import api
from converter.bind import bind
from converter.dims import read_dims
from converter.plan import Plan
from converter.rules.settings import resolve
from converter.runtime import load_model
from converter.runtime.networks import build_network
from converter.runtime.networks.whisper import Whisper
from converter.spec import TensorSpec

TOLERANCE = 1e-5
SMALL = Size(decoder_layers=2, hidden=32, decoder_heads=4, mels=10, encoder_positions=15)
SIZES: Mapping[str, Size] = {
    "like the published ones": SMALL,
    "like turbo": replace(SMALL, encoder_layers=3, decoder_layers=1, mels=16),
    "a decoder of another shape": replace(SMALL, decoder_heads=8, decoder_ffn=50, decoder_layers=3),
    "one head": replace(SMALL, encoder_heads=1, decoder_heads=1),
    "no layer": replace(SMALL, encoder_layers=0, decoder_layers=0),
    "heads of odd width": replace(SMALL, hidden=42, encoder_heads=6, decoder_heads=2),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("layout", ["hub", "openai"])
@torch.no_grad()
def test_outputs_are_those_of_transformers(name: str, layout: str, tmp_path: Path) -> None:
    size, source = SIZES[name], tmp_path / "model.safetensors"
    model = original(size, seed=len(name))
    if layout == "hub":
        model.save_pretrained(tmp_path)
    else:
        save_file({as_openai(n): tensor for n, tensor in stored(model).items()}, source)
    out = tmp_path / "out"
    api.convert(source, out, model="whisper", variant=[layout], dims=asdict(size))
    mels, tokens = inputs(size, seed=7)
    output = load_model(out, check="full")(mels, tokens)
    original_output = model(input_features=mels, decoder_input_ids=tokens)
    differences = compare(
        {"encoded": output.encoder_hidden_state, "logits": output.logits},
        {"encoded": original_output.encoder_last_hidden_state, "logits": original_output.logits},
        TOLERANCE,
    )
    assert len(differences) == 2
    assert not failing(differences)


@torch.no_grad()
def test_the_golden_figures_are_those_that_transformers_computes() -> None:
    dims = read_dims(MODELS / "whisper" / "golden-dims.yaml", [])
    model = original(Size(**{name: int(str(dim)) for name, dim in dims.items()}), seed=0)
    found = model.load_state_dict(golden_checkpoint("whisper"), strict=False)
    assert (found.missing_keys, found.unexpected_keys) == ([HEAD], [])
    recorded = golden_tensors("whisper")
    got = record(model, recorded["input.mels"], recorded["input.tokens"])
    assert got.keys() == recorded.keys()
    differences = compare(got, recorded, TOLERANCE)
    assert len(differences) == 8
    assert not failing(differences)


def plan(held: Mapping[str, list[int]], *variant: str) -> Plan:
    rule_file = api.model("whisper")
    header = {name: TensorSpec("F16", tuple(shape)) for name, shape in held.items()}
    return bind(rule_file, header, resolve(rule_file, variant=variant))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_size_is_accounted_for_in_every_layout(name: str) -> None:
    for english in (False, True)[: 1 + (name in ENGLISH)]:
        size, language = published(name, english=english), ["en"] if english else []
        hub = shapes(size)
        count = 11 + 15 * size.encoder_layers + 24 * size.decoder_layers
        assert len(hub) == count
        layouts = {
            "hub": hub,
            "bare": {tensor.removeprefix("model."): shape for tensor, shape in hub.items()},
            "openai": {as_openai(tensor): shape for tensor, shape in hub.items()},
        }
        for layout, held in layouts.items():
            made = plan(held, name, layout, *language)
            assert (made.used, len(made.dropped), len(made.targets)) == (count, 0, count)
            assert made.aliases == {"lm_head.weight": "decoder.token_embedding.weight"}
        described_dims, declared = described("whisper", [name, *language])
        assert described_dims.dims == asdict(size)
        network = build_network(described_dims)
        assert isinstance(network, Whisper)
        tensors = dict(network.named_parameters()) | dict(network.named_buffers())
        assert {tensor: tuple(value.shape) for tensor, value in tensors.items()} == declared


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("whisper-tiny", "tiny"),
        ("whisper-large-v3", "large-v3"),
        ("whisper-large-v3-turbo.openai", "large-v3-turbo"),
    ],
)
def test_the_headers_kept_here_are_those_of_the_originals(header: str, name: str) -> None:
    kept = json.loads((HEADERS / f"{header}.json").read_text("utf-8"))
    expected = shapes(published(name))
    if header.endswith(".openai"):
        expected = {as_openai(tensor): shape for tensor, shape in expected.items()}
    assert {tensor: entry["shape"] for tensor, entry in kept.items()} == expected
