"""What a recording takes from a network, what it leaves on it, and the file that it writes."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conversion_fixture import convert_golden
from reference_weights import GOLDEN
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from converter.errors import ExecutionError, SourceError, UsageError
from converter.header import LENGTH_BYTES, find_data_start, parse_header
from converter.runtime import recording, trace, trace_calls
from converter.runtime.trace_inputs import read_inputs
from converter.runtime.trace_run import trace_directory
from converter.trace_record import TraceRecord, from_metadata

Pair = namedtuple("Pair", ("left", "right"))


@dataclass
class Output:
    logits: Tensor
    hidden: list[Tensor] | None


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.9)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        out: Tensor = self.drop(self.act(self.proj(x)) * scale)
        return out


class Splitter(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"pair": Pair(x[:, :2], x[:, 2:]), "rest": (x, None, "text"), "two words": x + 1}


class Network(nn.Module):
    """Calls a block twice, and returns what has fields."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.splitter = Splitter()

    def forward(self, x: Tensor, *, twice: bool = True) -> Output:
        y = self.block(x)
        if twice:
            y = self.block(y, scale=0.5)
        parts = self.splitter(y)
        return Output(parts["rest"][0].sum(dim=1), [y])


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network().train()


X = torch.linspace(-1, 1, 12).reshape(3, 4)


def record_of(path: Path) -> TraceRecord:
    with safe_open(path, "pt") as file:
        return from_metadata(file.metadata(), set(file.keys()), where=str(path))


def test_every_call_is_recorded_after_those_within_it(network: Network, tmp_path: Path) -> None:
    traced = trace(network, {"x": X}, tmp_path / "t.safetensors")
    names = [call.name for call in traced.record.calls]
    assert names == [
        *("block.proj", "block.act", "block.drop", "block"),
        *("block.proj#2", "block.act#2", "block.drop#2", "block#2"),
        "splitter",
        "",
    ]
    callers = {call.name: call.caller for call in traced.record.calls}
    assert callers["block.act#2"] == "block#2"
    assert (callers["block#2"], callers[""]) == ("", None)
    assert traced.record.calls[1].type == "ReLU"
    assert record_of(tmp_path / "t.safetensors") == traced.record


def test_tensors_have_the_names_of_their_places(network: Network, tmp_path: Path) -> None:
    traced = trace(network, {"x": X}, tmp_path / "t.safetensors")
    calls = {call.name: call for call in traced.record.calls}
    assert calls[""].inputs == ("input.x",)
    assert calls[""].outputs == ("output.logits", "output.hidden.0")
    assert calls["block#2"].inputs == ("block#2.input.x", "block#2.input.scale")
    assert calls["block.proj"].inputs == ("block.proj.input",)
    assert calls["splitter"].outputs == (
        "splitter.output.pair.left",
        "splitter.output.pair.right",
        "splitter.output.rest.0",
        "splitter.output.2",
    )


def test_the_file_holds_what_was_computed(network: Network, tmp_path: Path) -> None:
    trace(network, {"x": X}, tmp_path / "t.safetensors")
    held = load_file(tmp_path / "t.safetensors")
    network.eval()
    with torch.no_grad():
        proj = network.block.proj(X)
        expected = network(X)
    assert torch.equal(held["input.x"], X)
    assert torch.equal(held["output.logits"], expected.logits)
    assert torch.equal(held["block.proj.output"], proj)  # though the activation works in place
    assert torch.equal(held["block.act.output"], proj.relu())
    assert held["block#2.input.scale"] == 0.5


def test_what_a_module_takes_is_stored_once_and_what_it_gives_always(
    network: Network, tmp_path: Path
) -> None:
    record = trace(network, {"x": X}, tmp_path / "t.safetensors").record
    held = load_file(tmp_path / "t.safetensors")
    for name in ("block.input.x", "block.proj.input"):
        assert record.same[name] == "input.x"
        assert name not in held
    assert record.same["block#2.output"] == "block.drop#2.input"
    assert torch.equal(held["block#2.output"], held["block.drop#2.input"])
    outputs = {name for call in record.calls for name in call.outputs}
    assert outputs <= set(held)


def test_two_runs_give_the_same_bytes(network: Network, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for path in paths:
        trace(network, {"x": X}, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_header_is_one_that_is_read_strictly(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    traced = trace(network, {"x": X}, path)
    data = path.read_bytes()
    start = find_data_start(data[:LENGTH_BYTES], len(data), where="t")
    header = parse_header(data, len(data), where="t")
    assert start % 4096 == 0
    assert {tensor.name: tensor.spec for tensor in header.tensors} == traced.header
    assert len(data) == traced.size_bytes
    assert set(header.metadata) == {"format", "trace", "calls", "same", "left_out"}


def hooks(network: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()
    )


def modes(network: nn.Module) -> list[bool]:
    return [module.training for module in network.modules()]


def test_nothing_is_left_on_the_network(network: Network, tmp_path: Path) -> None:
    network.splitter.eval()
    before = modes(network)
    with recording(network, tmp_path / "t.safetensors"):
        assert hooks(network) == 2 * len(list(network.modules()))
        assert not any(modes(network))
        network(X)
    assert hooks(network) == 0
    assert modes(network) == before


def test_an_error_leaves_neither_hooks_nor_a_file(network: Network, tmp_path: Path) -> None:
    before = modes(network)
    with (
        pytest.raises(RuntimeError, match="mat1 and mat2"),
        recording(network, tmp_path / "t.safetensors"),
    ):
        network(X[:, :3])
    assert hooks(network) == 0
    assert modes(network) == before
    assert not list(tmp_path.iterdir())


def test_a_block_may_call_parts_of_a_network_and_train_it(network: Network, tmp_path: Path) -> None:
    with recording(network, tmp_path / "t.safetensors") as seen:
        network.block(X)
        network(X).logits.sum().backward()
        network(X, twice=False)
    assert seen.traced is not None
    names = [call.name for call in seen.traced.record.calls]
    assert names[3] == "block"
    assert names[-1] == "#2"
    assert seen.traced.record.calls[-1].inputs == ("#2.input.x", "#2.input.twice")
    assert network.block.proj.weight.grad is not None


def test_a_call_that_fails_and_is_survived_does_not_confuse_the_rest(tmp_path: Path) -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError

    class Survives(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fails = Fails()
            self.proj = nn.Identity()

        def forward(self, x: Tensor) -> Any:
            try:
                self.fails(x)
            except KeyError:
                return self.proj(x)

    record = trace(Survives(), {"x": X}, tmp_path / "t.safetensors").record
    assert [(call.name, call.caller) for call in record.calls] == [
        ("fails", ""),
        ("proj", ""),
        ("", None),
    ]
    assert record.calls[0].outputs == ()


def test_only_some_modules_are_recorded(network: Network, tmp_path: Path) -> None:
    traced = trace(network, {"x": X}, tmp_path / "t.safetensors", only=["block.proj"])
    assert [call.name for call in traced.record.calls] == ["block.proj", "block.proj#2", ""]
    whole = {call.name: call.whole for call in traced.record.calls}
    assert whole == {"block.proj": True, "block.proj#2": True, "": False}
    assert "output.logits" in traced.header


def test_a_star_is_any_one_part_of_a_path(tmp_path: Path) -> None:
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2)))
    traced = trace(layers, {"input": X}, tmp_path / "t.safetensors", only=["*.1"])
    assert [call.name for call in traced.record.calls] == ["0.1", "1.1", ""]


def test_a_path_without_a_module_is_refused(network: Network, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no module of this path") as raised:
        trace(network, {"x": X}, tmp_path / "t.safetensors", only=["block.prok"])
    assert raised.value.findings[0].hint == "did you mean 'block.proj'?"
    assert not list(tmp_path.iterdir())


def test_a_recording_of_nothing_is_an_error(network: Network, tmp_path: Path) -> None:
    with (
        pytest.raises(ExecutionError, match="nothing was recorded"),
        recording(network, tmp_path / "t.safetensors"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_only_when_asked(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    path.write_text("mine")
    with pytest.raises(ExecutionError, match="the target exists"):
        trace(network, {"x": X}, path)
    assert path.read_text() == "mine"
    trace(network, {"x": X}, path, overwrite=True)
    assert record_of(path).calls
    assert [file.name for file in tmp_path.iterdir()] == ["t.safetensors"]


def test_a_folder_that_is_not_there_is_an_error(network: Network, tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="cannot be written"):
        trace(network, {"x": X}, tmp_path / "absent" / "t.safetensors")


def test_too_many_calls_end_the_run(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_calls, "MOST_CALLS", 3)
    with pytest.raises(ExecutionError, match="more than 3 calls"):
        trace(network, {"x": X}, tmp_path / "t.safetensors")
    assert hooks(network) == 0
    assert not list(tmp_path.iterdir())


def test_what_safetensors_cannot_hold_is_named(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return x, x.to_sparse(), x.to(torch.complex128), x.to(torch.bfloat16).T

    traced = trace(Odd(), {"x": X}, tmp_path / "t.safetensors")
    assert traced.record.left_out == ("output.1", "output.2")
    held = load_file(tmp_path / "t.safetensors")
    assert torch.equal(held["output.3"], X.to(torch.bfloat16).T)


def test_names_that_run_together_stay_apart(tmp_path: Path) -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("output", Inner())
            self.add_module("a b", Inner())

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            inner: Any = self.get_submodule("output")
            return {"output": inner(x) * 2, "spaced": self.get_submodule("a b")(x)}

    traced = trace(Outer(), {"x": X}, tmp_path / "t.safetensors")
    assert [call.name for call in traced.record.calls] == ["output", "a_b", ""]
    held = load_file(tmp_path / "t.safetensors")
    assert torch.equal(held["output.output"], X + 1)
    assert torch.equal(held["output.output_"], 2 * (X + 1))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "takes 'x', which the inputs lack"),
        ({"x": X, "twize": X}, "takes no 'twize'. Did you mean 'twice'?"),
        ({"x": X[:, :3]}, "cannot compute with these inputs: mat1 and mat2"),
    ],
)
def test_inputs_that_do_not_fit_are_told_what_does(
    network: Network, tmp_path: Path, inputs: dict[str, Tensor], said: str
) -> None:
    with pytest.raises(UsageError) as raised:
        trace(network, inputs, tmp_path / "t.safetensors")
    assert said in raised.value.findings[0].what
    assert raised.value.findings[0].expected == "Network(x, twice=True)"
    assert raised.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_the_words_of_torch_are_not_taken_for_those_of_the_network(tmp_path: Path) -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    class Spoken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            """Return ``x`` [B],
            unchanged.
            """
            return x

    for network, hint in ((Silent(), None), (Spoken(), "Return ``x`` [B], unchanged.")):
        with pytest.raises(UsageError) as raised:
            trace(network, {}, tmp_path / "t.safetensors")
        assert raised.value.findings[0].hint == hint


def test_a_number_is_one_where_the_network_asks_for_it(network: Network, tmp_path: Path) -> None:
    once = trace(network, {"x": X, "twice": torch.tensor(False)}, tmp_path / "t.safetensors")
    assert "block#2" not in {call.name for call in once.record.calls}
    assert once.record.calls[-1].inputs == ("input.x", "input.twice")


def test_inputs_are_named_with_or_without_a_prefix(tmp_path: Path) -> None:
    path = tmp_path / "inputs.safetensors"
    save_file({"input.x": X, "input.a.y": X[:0].clone(), "output.z": X.clone()}, path)
    assert set(read_inputs(path)) == {"x", "a.y"}
    assert set(read_inputs(path, "input.a.")) == {"y"}
    assert set(read_inputs(path, "")) == {"input.x", "input.a.y", "output.z"}
    assert torch.equal(read_inputs(path)["x"], X)
    assert read_inputs(path)["a.y"].shape == (0, 4)
    with pytest.raises(SourceError, match="no tensor has a name that begins so"):
        read_inputs(path, "in.")
    save_file({"x": X.to(torch.bfloat16)}, path)
    assert torch.equal(read_inputs(path)["x"], X.to(torch.bfloat16))
    with pytest.raises(SourceError, match="no such file"):
        read_inputs(tmp_path / "absent")
    with pytest.raises(SourceError, match="not a regular file"):
        read_inputs(tmp_path)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gpt2") / "gpt2"
    return convert_golden(out, "gpt2", "gpt2", variant=["saved"])


def test_the_trace_of_a_canonical_network_names_its_weights(gpt2: Path, tmp_path: Path) -> None:
    inputs = read_inputs(GOLDEN / "gpt2" / "golden.safetensors")
    traced = trace_directory(gpt2, inputs, tmp_path / "t.safetensors", check="full")
    described = json.loads((gpt2 / "manifest.json").read_text())
    assert traced.record.model == "gpt2"
    assert traced.record.content_sha256 == described["content_sha256"]
    assert all(call.whole for call in traced.record.calls)


@pytest.mark.cuda
def test_a_network_on_a_gpu_is_traced_there(gpt2: Path, tmp_path: Path) -> None:
    inputs = read_inputs(GOLDEN / "gpt2" / "golden.safetensors")
    paths = {device: tmp_path / f"{device}.safetensors" for device in ("cpu", "cuda")}
    for device, path in paths.items():
        trace_directory(gpt2, inputs, path, device=device)
    held = {device: load_file(path) for device, path in paths.items()}
    assert held["cpu"].keys() <= held["cuda"].keys() | held["cpu"].keys()
    torch.testing.assert_close(
        held["cuda"]["output.logits"], held["cpu"]["output.logits"], rtol=1e-4, atol=1e-4
    )
