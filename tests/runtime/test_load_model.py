from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from canonical_fixture import TOY, write_canonical
from torch import nn

from converter.errors import MismatchError, UsageError
from converter.manifest import ModelRecord, Scalar
from converter.runtime import load_model
from converter.runtime.networks import NETWORKS

STATE = {"weight": torch.randn(4, 4), "bias": torch.randn(4)}


class Toy(nn.Linear):
    pass


@pytest.fixture(autouse=True)
def toy_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(model: ModelRecord) -> nn.Module:
        width = model.dims["width"]
        assert isinstance(width, int)
        return Toy(width, width)

    network = ModuleType("toy_network")
    network.__dict__.update(CONVENTIONS={"norm": ("none", "rms_norm"), "scale": float}, build=build)
    monkeypatch.setitem(sys.modules, "toy_network", network)
    monkeypatch.setitem(NETWORKS, "toy", "toy_network")


def write(tmp_path: Path, conventions: dict[str, Scalar]) -> Path:
    return write_canonical(tmp_path / "toy", STATE, model=replace(TOY, conventions=conventions))


@pytest.mark.parametrize("scale", [2, 0.5])
def test_a_network_is_built_from_the_manifest_for_inference(
    tmp_path: Path, scale: int | float
) -> None:
    model = load_model(write(tmp_path, {"norm": "rms_norm", "scale": scale}), check="full")
    assert isinstance(model, Toy)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    expected = torch.ones(2, 4) @ STATE["weight"].T + STATE["bias"]
    torch.testing.assert_close(model(torch.ones(2, 4)), expected)


def test_a_network_is_mapped_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.runtime.tensors.read_units", None)
    model = load_model(write(tmp_path, {"norm": "none", "scale": 1.0}), mapped=True)
    expected = torch.ones(2, 4) @ STATE["weight"].T + STATE["bias"]
    torch.testing.assert_close(model(torch.ones(2, 4)), expected)


def test_a_model_without_network_is_refused_with_those_that_have_one(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", STATE, model=replace(TOY, name="nobody"))
    with pytest.raises(UsageError) as caught:
        load_model(path)
    (finding,) = caught.value.findings
    assert finding.expected == f"one of {', '.join(NETWORKS)}"
    assert finding.hint is not None
    assert "load_tensors" in finding.hint


def test_missing_unknown_and_different_conventions_are_all_refused_at_once(
    tmp_path: Path,
) -> None:
    with pytest.raises(MismatchError) as caught:
        load_model(write(tmp_path, {"norm": "layer_norm", "rope": "interleaved"}))
    findings = [
        (item.what.split(":")[1], item.expected, item.got) for item in caught.value.findings
    ]
    assert findings == [
        (" norm", "'none' or 'rms_norm'", "'layer_norm'"),
        (" scale", "a positive number", None),
        (" rope", None, "'interleaved'"),
    ]


@pytest.mark.parametrize("scale", [0, -1, True, "2", None])
def test_a_number_that_is_none_is_refused(tmp_path: Path, scale: Scalar) -> None:
    with pytest.raises(MismatchError, match="scale"):
        load_model(write(tmp_path, {"norm": "none", "scale": scale}))


def test_dims_that_are_not_those_of_the_tensors_are_refused(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", STATE, model=replace(TOY, dims={"width": 5}))
    with pytest.raises(MismatchError) as caught:
        load_model(path)
    assert [finding.code for finding in caught.value.findings] == ["shape", "shape"]


def test_a_network_takes_the_floating_dtypes_of_the_files(tmp_path: Path) -> None:
    state = {"weight": torch.ones(2, 2, dtype=torch.bfloat16), "bias": torch.ones(2)}
    toy = replace(TOY, dims={"width": 2}, conventions={"norm": "none", "scale": 1.0})
    model = load_model(write_canonical(tmp_path / "toy", state, model=toy))
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert dtypes == {"weight": torch.bfloat16, "bias": torch.float32}
