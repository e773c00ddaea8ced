from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conversion_fixture import assert_same_tensors, described, untrained
from reference_weights import HEADERS, Tensors
from safetensors.torch import save_file
from torch import Tensor

from converter import api
from converter.errors import UsageError
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import wav2vec_bert_stats
from converter.runtime.networks.wav2vec_bert_stats import Wav2VecBertStats

TOLERANCE = 1e-5
HIDDEN = 12

# From the least to the largest that the published file holds.
STATISTICS = {
    "mean": torch.linspace(-1.913, 1.002, HIDDEN),
    "var": torch.linspace(0.0706, 20.03, HIDDEN),
}
HIDDEN_STATE = torch.randn(2, 5, HIDDEN, generator=torch.Generator().manual_seed(1))


def converted(folder: Path, tensors: Tensors, dtype: str | None = None) -> Path:
    source, out = folder / "stats.safetensors", folder / "out"
    save_file(tensors, source)
    api.convert(source, out, model="wav2vec-bert-stats", dims={"hidden": HIDDEN}, dtype=dtype)
    return out


def load(directory: Path, device: str = "cpu") -> Wav2VecBertStats:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, Wav2VecBertStats)
    return network


def is_standardised(got: Tensor) -> bool:
    """Return whether ``got`` is the closed form of the hidden state; NaN is not."""
    mean, var = STATISTICS["mean"].double(), STATISTICS["var"].double()
    expected = (HIDDEN_STATE.double() - mean) / var.sqrt()
    largest = (got.cpu().double() - expected).abs().max()
    return bool(largest <= TOLERANCE * expected.abs().max().clamp(min=1))


def test_features_are_standardised_as_the_closed_form_says(tmp_path: Path) -> None:
    assert is_standardised(load(converted(tmp_path, STATISTICS))(HIDDEN_STATE))


@pytest.mark.cuda
def test_features_are_standardised_on_cuda(tmp_path: Path) -> None:
    network = load(converted(tmp_path, STATISTICS), "cuda")
    assert is_standardised(network(HIDDEN_STATE.cuda()))


@pytest.mark.parametrize("dtype", [None, "BF16"])
def test_statistics_are_stored_as_they_are_whatever_dtype_is_asked(
    dtype: str | None, tmp_path: Path
) -> None:
    assert_same_tensors(load_tensors(converted(tmp_path, STATISTICS, dtype)), STATISTICS)


MUTANTS = {
    "mean and variance swapped": {"mean": STATISTICS["var"], "var": STATISTICS["mean"]},
    "a deviation for the variance": {**STATISTICS, "var": STATISTICS["var"].square()},
    "eps 1e-5 under the root": {**STATISTICS, "var": STATISTICS["var"] + 1e-5},
    "rounded to bfloat16": {name: t.bfloat16().float() for name, t in STATISTICS.items()},
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_other_statistics_are_seen(mutant: str, tmp_path: Path) -> None:
    assert not is_standardised(load(converted(tmp_path, MUTANTS[mutant]))(HIDDEN_STATE))


def test_the_published_size_has_the_tensors_of_its_header() -> None:
    plan = api.plan(HEADERS / "wav2vec2bert_stats.json", model="wav2vec-bert-stats")
    record, shapes = described("wav2vec-bert-stats")
    assert plan.used == len(plan.targets) == 2
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    with torch.device("meta"):
        network = wav2vec_bert_stats.build(record)
    assert {name: tuple(t.shape) for name, t in network.state_dict().items()} == shapes


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_keep_their_dtype(stored: torch.dtype, dtype: torch.dtype) -> None:
    network = untrained("wav2vec-bert-stats", {"hidden": 3}, stored)
    assert isinstance(network, Wav2VecBertStats)
    network.var.fill_(4)
    out = network(torch.ones(1, 2, 3, dtype=dtype))
    assert out.dtype == dtype
    expected = (1 - network.mean.float()) / 2
    torch.testing.assert_close(out[0, 0].float(), expected, rtol=0.02, atol=0.02)


def test_another_width_is_refused() -> None:
    network = untrained("wav2vec-bert-stats", {"hidden": 3}, torch.float32)
    with pytest.raises(UsageError, match="another width"):
        network(torch.ones(1, 2, 1))
