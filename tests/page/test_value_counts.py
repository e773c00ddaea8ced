from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import convert

from converter import api
from converter.errors import SourceError
from converter.manifest import Manifest, Statistics, load
from converter.page import value_counts
from converter.page.value_counts import EXPONENTS, Z_BINS, ValueCounts, count_values

RULES = """
dtypes: [F32, BF16, I64]
rules:
  - {from: a, to: {a: [4, 64]}}
  - {from: b, to: {b: [8]}}
  - {from: n, to: {n: [3]}}
"""


def made(folder: Path, a: torch.Tensor, b: torch.Tensor) -> Manifest:
    convert(folder, {"a": a, "b": b, "n": torch.arange(3)}, RULES)
    return load((folder / "out" / "manifest.json").read_bytes())


def counted(folder: Path, manifest: Manifest, **options: Any) -> ValueCounts:
    groups = {tensor.name: tensor.name for tensor in manifest.tensors}
    told = options.pop("progress", lambda done, total: None)
    options = {"jobs": 2, **options}
    return count_values(folder / "out", manifest, groups, progress=told, **options)


def test_values_are_counted_by_their_distance_from_the_mean_of_their_tensor(tmp_path: Path) -> None:
    a = torch.from_numpy(np.random.default_rng(0).normal(5, 2, (4, 64)).astype(np.float32))
    manifest = made(tmp_path, a, torch.zeros(8))
    counts = counted(tmp_path, manifest).deviations["a"]
    z = ((a - a.mean()) / a.std(correction=0)).flatten().numpy()
    expected, _ = np.histogram(z, bins=Z_BINS, range=(-6, 6))
    assert sum(counts) == 256
    assert np.abs(np.array(counts[1:-1]) - expected).sum() <= 2  # on an edge, roundings differ


def test_what_is_far_away_is_counted_at_the_ends(tmp_path: Path) -> None:
    a = torch.zeros(4, 64)
    a[0, 0] = 100.0
    counts = counted(tmp_path, made(tmp_path, a, torch.zeros(8))).deviations["a"]
    assert (counts[0], counts[-1], sum(counts)) == (0, 1, 256)


def test_magnitudes_are_counted_by_power_of_two(tmp_path: Path) -> None:
    b = torch.tensor([1.0, 1.5, 2.0, 0.25, 0.0, -0.0, 1e-20, -3e30])
    found = counted(tmp_path, made(tmp_path, torch.zeros(4, 64), b))
    by_exponent = {e: n for e, n in zip(EXPONENTS, found.exponents, strict=True) if n}
    assert by_exponent == {1: 2, 2: 1, -1: 1, EXPONENTS[0]: 1, EXPONENTS[-1]: 1}
    assert (found.zeros, found.nonfinite, found.total) == (258, 0, 264)


def test_integers_are_not_counted(tmp_path: Path) -> None:
    found = counted(tmp_path, made(tmp_path, torch.zeros(4, 64), torch.zeros(8)))
    assert set(found.deviations) == {"a", "b"}


def test_narrow_floats_are_counted_as_their_values(tmp_path: Path) -> None:
    b = torch.tensor([1, -2, 4, 0, 0, 0, 0, 0], dtype=torch.bfloat16)
    found = counted(tmp_path, made(tmp_path, torch.zeros(4, 64), b))
    assert sum(found.exponents) == 3


def test_counts_are_the_same_for_any_parts_and_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32))
    manifest = made(tmp_path, a, torch.ones(8))
    once = counted(tmp_path, manifest)
    monkeypatch.setattr(value_counts, "PIECE_BYTES", 64)
    told: list[tuple[int, int]] = []
    again = counted(tmp_path, manifest, jobs=3, progress=lambda *both: told.append(both))
    assert again == once
    assert len(told) == 17
    assert sum(done for done, _ in told) == told[-1][1] == 1024 + 32


def test_a_file_that_is_gone_or_short_is_a_source_error(tmp_path: Path) -> None:
    manifest = made(tmp_path, torch.ones(4, 64), torch.ones(8))
    weights = tmp_path / "out" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2000])
    with pytest.raises(SourceError, match="cannot be read"):
        counted(tmp_path, manifest)
    weights.unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        counted(tmp_path, manifest)


def test_it_is_a_converted_directory_that_is_counted(tmp_path: Path) -> None:
    made(tmp_path, torch.ones(4, 64), torch.ones(8))
    assert api.verify(tmp_path / "out").holds


def test_statistics_that_no_value_can_be_measured_by_leave_their_tensor_out(tmp_path: Path) -> None:
    manifest = made(tmp_path, torch.full((4, 64), 3e38), torch.arange(8.0))
    wrong = Statistics(-1e308, 1e-320, -1e308, 1e308)
    tensors = tuple(
        replace(tensor, stats=wrong) if tensor.name == "a" else tensor
        for tensor in manifest.tensors
    )
    found = counted(tmp_path, replace(manifest, tensors=tensors))
    assert sum(found.deviations["a"]) == 0
    assert sum(found.deviations["b"]) == 8
    assert found.total == 264
