"""How far tensors are apart, by hand and against numpy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from converter import compare_values
from converter.compare_values import Measure, Tolerance, measure
from converter.errors import ExecutionError
from converter.source import open_source
from converter.source.stored import Stored


def measured(one: Tensor, other: Tensor, folder: Path, **tolerance: float) -> Measure:
    save_file(
        {"one": one.contiguous(), "other": other.contiguous().clone()}, folder / "x.safetensors"
    )
    told: list[int] = []
    with open_source(folder / "x.safetensors") as source:
        stored = [Stored(source, name, source.header[name]) for name in ("one", "other")]
        found = measure(
            stored[0], stored[1], Tolerance(**tolerance), lambda done, _: told.append(done)
        )
        assert sum(told) == source.header["one"].nbytes
    return found


@pytest.mark.parametrize("chunk", [7, 1 << 18])
def test_the_figures_are_those_of_numpy(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_values, "_CHUNK_ELEMENTS", chunk)
    torch.manual_seed(0)
    one = torch.randn(5, 11)
    other = one + 1e-3 * torch.randn(5, 11)
    found = measured(one, other, tmp_path, atol=1e-3, rtol=1e-4)
    x, y = one.double().numpy(), other.double().numpy()
    apart = np.abs(x - y)
    assert found.largest == apart.max()
    assert found.index == np.unravel_index(apart.argmax(), apart.shape)
    assert found.expected == str(one.numpy()[found.index])
    assert found.got == str(other.numpy()[found.index])
    assert found.relative == (apart / np.maximum(np.abs(x), np.abs(y))).max()
    assert found.mean == pytest.approx(apart.mean(), rel=1e-12)
    assert found.error == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(x), rel=1e-12)
    cosine = (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)
    assert found.cosine == pytest.approx(cosine, rel=1e-12)
    assert found.beyond == (apart > 1e-3 + 1e-4 * np.abs(x)).sum() > 0
    assert not found.agrees


def test_the_default_tolerance_is_of_the_dtype_and_the_magnitude(tmp_path: Path) -> None:
    one = torch.tensor([3.0, 4.0, 0.0, 0.0]) * 100
    found = measured(one, one, tmp_path)
    assert found.rtol == 1e-4
    assert found.atol == pytest.approx(1e-4 * 250)
    assert measured(one.double(), one.double(), tmp_path).rtol == 1e-10
    assert measured(one, one.to(torch.bfloat16), tmp_path).rtol == 0.5
    assert measured(one.double(), one, tmp_path).rtol == 1e-4
    assert measured(one.to(torch.float8_e5m2), one, tmp_path).rtol == 1.0
    assert measured(one, one, tmp_path, rtol=0.5).atol == 125
    assert measured(one, one, tmp_path, atol=0.0).atol == 0


def test_equal_bytes_are_said_to_be_equal(tmp_path: Path) -> None:
    one = torch.tensor([0.0, math.nan, math.inf])
    found = measured(one, one, tmp_path)
    assert found.same_bytes
    assert found.agrees
    assert (found.largest, found.mean, found.cosine) == (0, 0, 1)
    other = measured(one, torch.tensor([-0.0, math.nan, math.inf]), tmp_path)
    assert not other.same_bytes
    assert other.agrees
    assert other.largest == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1.0, 2.0], [1.0, math.nan]),
        ([1.0, math.nan], [1.0, 2.0]),
        ([1.0, math.inf], [1.0, -math.inf]),
        ([1.0, math.inf], [1.0, 3e38]),
        ([1.0, 3e38], [1.0, math.inf]),
    ],
)
def test_nan_and_infinity_agree_with_nothing_else(
    one: list[float], other: list[float], tmp_path: Path
) -> None:
    found = measured(torch.tensor(one), torch.tensor(other), tmp_path, atol=1.0, rtol=1.0)
    assert found.largest == math.inf
    assert found.beyond == 1
    assert found.index == (1,)
    assert math.isfinite(found.mean)
    assert found.cosine == 1


def test_the_mean_is_that_of_what_is_finite_in_both(tmp_path: Path) -> None:
    found = measured(torch.tensor([1.0, math.nan, 3.0]), torch.tensor([2.0, 5.0, 5.0]), tmp_path)
    assert found.mean == 1.5


def test_integers_are_equal_or_not_whatever_is_allowed(tmp_path: Path) -> None:
    one = torch.tensor([1, 2**60, 3])
    found = measured(one, torch.tensor([1, 2**60 + 1, 3]), tmp_path, atol=9.0, rtol=9.0)
    assert (found.beyond, found.index, found.largest) == (1, (1,), 1.0)
    assert found.got == str(2**60 + 1)
    assert measured(one, torch.tensor([1, 2**60 + 7, 3]), tmp_path).largest == 7.0
    assert measured(one, one.clone().to(torch.uint64), tmp_path).agrees
    assert measured(torch.tensor([True, False]), torch.tensor([1, 0]), tmp_path).agrees


def test_tensors_without_elements_or_magnitude_are_compared_too(tmp_path: Path) -> None:
    assert measured(torch.zeros(0, 3), torch.zeros(0, 3), tmp_path).agrees
    assert measured(torch.tensor(2.0), torch.tensor(2.0), tmp_path).index == ()
    zeros = measured(torch.zeros(3), torch.tensor([0.0, -0.0, 0.0]), tmp_path)
    assert (zeros.agrees, zeros.cosine, zeros.error) == (True, 1.0, 0.0)
    moved = measured(torch.zeros(3), torch.full((3,), 1e-9), tmp_path)
    assert (moved.agrees, moved.cosine, moved.error) == (False, 0.0, 1.0)
    large = torch.tensor([1e200, 1e200], dtype=torch.float64)
    huge = measured(large, 2 * large, tmp_path)
    assert not huge.agrees
    assert (huge.largest, huge.error) == (1e200, math.inf)


def test_complex_numbers_are_compared_by_their_distance(tmp_path: Path) -> None:
    one = torch.tensor([3 + 4j, 1j])
    found = measured(one, torch.tensor([3 + 4j, 1.0 + 1j]), tmp_path)
    assert (found.largest, found.index) == (1.0, (1,))
    assert found.got == "(1+1j)"


def test_dtypes_of_less_than_a_byte_are_refused(tmp_path: Path) -> None:
    header = b'{"one":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    path = tmp_path / "f4.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with open_source(path) as source:
        stored = Stored(source, "one", source.header["one"])
        with pytest.raises(ExecutionError, match="less than a byte"):
            measure(stored, stored, Tolerance(), lambda done, total: None)
