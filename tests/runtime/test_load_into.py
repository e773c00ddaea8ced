from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from canonical_fixture import flip, write_canonical
from torch import Tensor, nn

from converter.canonical import DATA_ALIGNMENT_BYTES, WEIGHTS_NAME
from converter.errors import MismatchError
from converter.finding import Finding
from converter.runtime import load_into


class Blocks(nn.Module):
    """Layers, a persistent buffer, and one that is not."""

    def __init__(self, layers: int = 3, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.norm = nn.BatchNorm1d(width)
        self.register_buffer("ramp", torch.arange(width, device="cpu"), persistent=False)


class Tied(nn.Module):
    def __init__(self, *, tie: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        if tie:
            self.head.weight = self.embed.weight


def random_state(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.randn(tensor.shape).to(tensor.dtype)
        for name, tensor in module.state_dict().items()
    }


def refused(module: nn.Module, path: Path) -> tuple[Finding, ...]:
    """Assert that ``module`` is refused and left as it was; return why."""
    before = {name: (id(held), held.device) for name, held in all_tensors(module).items()}
    values = {name: held.clone() for name, held in all_tensors(module).items()}
    with pytest.raises(MismatchError) as caught:
        load_into(module, path)
    after = all_tensors(module)
    assert {name: (id(held), held.device) for name, held in after.items()} == before
    assert all(held.is_meta or held.equal(values[name]) for name, held in after.items())
    assert {finding.where for finding in caught.value.findings} == {str(path)}
    return caught.value.findings


def all_tensors(module: nn.Module) -> Mapping[str, Tensor]:
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return parameters | dict(module.named_buffers(remove_duplicate=False))


@pytest.mark.parametrize("built_on", ["meta", "cpu"])
def test_a_module_on_any_device_gets_the_tensors(tmp_path: Path, built_on: str) -> None:
    state = random_state(Blocks())
    with torch.device(built_on):
        module = Blocks()
    load_into(module, write_canonical(tmp_path / "toy", state), check="full")
    assert all(held.device == torch.device("cpu") for held in all_tensors(module).values())
    for name, tensor in module.state_dict().items():
        assert tensor.equal(state[name]), name
    assert module.get_buffer("ramp").equal(torch.arange(4))


def test_parameters_keep_whether_they_need_a_gradient(tmp_path: Path) -> None:
    module = Blocks()
    module.layers[1].requires_grad_(False)
    load_into(module, write_canonical(tmp_path / "toy", random_state(module)))
    needs = {name: held.requires_grad for name, held in module.named_parameters()}
    assert [name for name, need in needs.items() if not need] == [
        "layers.1.weight",
        "layers.1.bias",
    ]


def test_half_precision_and_training_work_on_what_was_loaded(tmp_path: Path) -> None:
    module = Blocks().to(torch.bfloat16)
    load_into(module, write_canonical(tmp_path / "toy", random_state(module)))
    module.layers[0](torch.ones(2, 4, dtype=torch.bfloat16)).sum().backward()
    assert module.layers[0].weight.grad is not None


def test_every_difference_is_listed_at_once_folded_and_with_hints(tmp_path: Path) -> None:
    state = random_state(Blocks())
    for layer in range(3):
        state[f"layers.{layer}.weights"] = state.pop(f"layers.{layer}.weight")
    state["layers.1.bias"] = torch.zeros(5)
    state["norm.bias"] = torch.zeros(4, dtype=torch.float16)
    state["extra"] = torch.zeros(2, 2)
    findings = refused(Blocks(), write_canonical(tmp_path / "toy", state))
    assert [(item.code, item.tensor, item.expected, item.got) for item in findings] == [
        ("missing", "layers.{0..2}.weight", None, "F32 [4, 4]"),
        ("unexpected", "layers.{0..2}.weights", "F32 [4, 4]", None),
        ("unexpected", "extra", "F32 [2, 2]", None),
        ("shape", "layers.1.bias", "[5]", "[4]"),
        ("dtype", "norm.bias", "F16", "F32"),
    ]
    assert findings[0].hint is not None
    assert "layers.#.weights" in findings[0].hint


def test_a_scalar_is_not_a_vector_of_one(tmp_path: Path) -> None:
    state = random_state(Blocks()) | {"norm.num_batches_tracked": torch.zeros(1, dtype=torch.int64)}
    (finding,) = refused(Blocks(), write_canonical(tmp_path / "toy", state))
    assert (finding.code, finding.expected, finding.got) == ("shape", "[1]", "[]")


def test_a_lazy_module_is_refused(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", random_state(nn.Linear(4, 4)))
    with pytest.raises(MismatchError, match="not initialised"):
        load_into(nn.LazyLinear(4), path)


@pytest.mark.parametrize("built_on", ["meta", "cpu"])
@pytest.mark.parametrize("tie", [True, False])
def test_names_that_are_aliases_become_one_parameter(
    tmp_path: Path, tie: bool, built_on: str
) -> None:
    state = {"embed.weight": torch.randn(5, 4)}
    path = write_canonical(tmp_path / "toy", state, aliases={"head.weight": "embed.weight"})
    with torch.device(built_on):
        module = Tied(tie=tie)
    load_into(module, path)
    assert module.head.weight is module.embed.weight
    assert module.head.weight.equal(state["embed.weight"])


def test_names_that_the_module_ties_and_the_files_do_not_are_refused(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", random_state(Tied(tie=False)))
    (finding,) = refused(Tied(tie=True), path)
    assert (finding.code, finding.tensor) == ("tie", "embed.weight = head.weight")


def test_a_submodule_under_two_names_stays_one(tmp_path: Path) -> None:
    shared = nn.Linear(3, 3)
    module = nn.Sequential(shared, nn.ReLU(), shared)
    state = {f"0.{leaf}": torch.randn(held.shape) for leaf, held in shared.state_dict().items()}
    aliases = {"2.weight": "0.weight", "2.bias": "0.bias"}
    load_into(module, write_canonical(tmp_path / "toy", state, aliases=aliases))
    assert module[0] is module[2]
    assert shared.weight.equal(state["0.weight"])


def test_unsaved_buffers_left_on_meta_are_named(tmp_path: Path) -> None:
    module = Blocks()
    module.ramp = module.ramp.to("meta")
    (finding,) = refused(module, write_canonical(tmp_path / "toy", random_state(Blocks())))
    assert (finding.code, finding.tensor) == ("meta", "ramp")


def test_a_recurrent_module_works_on_what_was_loaded(tmp_path: Path) -> None:
    module, other = nn.LSTM(3, 4), nn.LSTM(3, 4)
    load_into(module, write_canonical(tmp_path / "toy", other.state_dict()))
    assert module(torch.ones(2, 1, 3))[0].equal(other(torch.ones(2, 1, 3))[0])


def test_a_module_is_untouched_when_bytes_differ(tmp_path: Path) -> None:
    path = write_canonical(tmp_path / "toy", random_state(Blocks()))
    flip(path / WEIGHTS_NAME, DATA_ALIGNMENT_BYTES)
    module = Blocks()
    before = {name: id(held) for name, held in all_tensors(module).items()}
    with pytest.raises(MismatchError):
        load_into(module, path, check="full")
    assert {name: id(held) for name, held in all_tensors(module).items()} == before
