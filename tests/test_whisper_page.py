"""docs/whisper.md, followed word by word, and its spectrograms beside those of transformers."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from doc_pages import ROOT, File, follow, read_page
from transformers import WhisperFeatureExtractor

from converter import api
from converter.rules.settings import resolve

PAGE = ROOT / "docs" / "whisper.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture
def spectrogram(tmp_path: Path) -> ModuleType:
    """The module that the page asks its reader to write."""
    steps = read_page(TEXT)
    (file,) = (s for s in steps if isinstance(s, File) and s.path == "spectrogram.py")
    path = tmp_path / file.path
    path.write_text(file.text, "utf-8")
    spec = importlib.util.spec_from_file_location("spectrogram", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_true_word_by_word(tmp_path: Path) -> None:
    assert follow(PAGE, tmp_path) == 11


@pytest.mark.parametrize("size", ["tiny", "large-v3"])
def test_its_spectrograms_are_those_of_transformers(size: str, spectrogram: ModuleType) -> None:
    audio = resolve(api.model("whisper"), variant=[size]).audio
    extractor: Any = WhisperFeatureExtractor
    extract = extractor(feature_size=audio["n_mels"])
    assert (extract.sampling_rate, extract.n_fft, extract.hop_length, extract.n_samples) == tuple(
        audio[key] for key in ("sample_rate", "n_fft", "hop_length", "clip_samples")
    )
    filters = spectrogram.mel_filters(audio).double().T
    expected_filters = torch.from_numpy(extract.mel_filters)
    torch.testing.assert_close(filters, expected_filters, atol=1e-9, rtol=1e-4)
    generator = torch.Generator().manual_seed(3)
    for seconds in (1, 31):
        samples = 0.3 * torch.randn(seconds * 16000, generator=generator)
        expected = extract(samples.numpy(), sampling_rate=16000, return_tensors="pt")
        got = spectrogram.log_mel(samples, audio)
        torch.testing.assert_close(got, expected["input_features"][0], atol=1e-4, rtol=0)


def test_every_variant_of_a_size_is_in_its_table() -> None:
    told = set(re.findall(r"[\w.-]+", TEXT.partition("## Something")[0]))
    variants = api.model("whisper").variants
    assert {*variants["size"], *variants["layout"], "en"} - {"hub"} <= told
