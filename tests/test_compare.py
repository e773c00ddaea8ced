"""A trace against what a port wrote: what is compared, and whose fault it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from converter import api
from converter.compare import Comparison
from converter.errors import MismatchError, SourceError, UsageError
from converter.report import Report
from converter.report_compare import of_comparison
from converter.runtime import trace


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 6)
        self.fc2 = nn.Linear(6, 6)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = x + self.fc2(self.fc1(x).relu() * mask)
        return out


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(9, 6)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        mask = (ids > 1)[:, None].float()
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = self.head(x * 2)
        return out


IDS = torch.tensor([1, 4, 7, 8])


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    trace(Network(), {"ids": IDS}, tmp_path / "ours.safetensors")
    return tmp_path / "ours.safetensors"


def everything(ours: Path) -> dict[str, Tensor]:
    """Return all tensors of the trace, those that are stored once included."""
    held = load_file(ours)
    first = api.compare(ours, ours).first_side.trace
    assert first is not None
    return {**held, **{name: held[other].clone() for name, other in first.same.items()}}


def against(ours: Path, tensors: dict[str, Tensor], **options: Any) -> Comparison:
    port = ours.with_name("port.safetensors")
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, port)
    return api.compare(ours, port, **options)


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def test_a_trace_is_equal_to_itself_and_each_tensor_is_read_once(ours: Path) -> None:
    told: list[tuple[int, int]] = []
    comparison = api.compare(ours, ours, progress=lambda done, total: told.append((done, total)))
    assert comparison.holds
    assert comparison.inputs == "equal"
    assert comparison.count("equal") == len(comparison.tensors) == 20
    names = [tensor.name for tensor in comparison.tensors]
    assert names[:5] == [
        "input.ids",
        "embedding.input",
        "embedding.output",
        "blocks.0.input.x",
        "blocks.0.input.mask",
    ]
    assert names[-1] == "output"
    assert {total for _, total in told} == {sum(done for done, _ in told)}


def test_a_plain_file_of_all_names_is_compared_in_the_order_of_the_trace(ours: Path) -> None:
    port = everything(ours)
    port["blocks.1.fc2.output"] += 0.1
    port["blocks.0.output"] += 0.1
    comparison = against(ours, port)
    assert comparison.first is not None
    assert comparison.first.call.name == "blocks.0"
    assert comparison.first.kind == "own code"
    assert comparison.first.before is None
    assert comparison.first.is_certain
    report = of_comparison(comparison, whole=False)
    assert report.exit_code == 7
    assert (
        report.findings[0].what == "the first to part is blocks.0 (Block): all that it takes and "
        "all that its modules return agrees, but not what its own code makes of that"
    )


def test_what_a_module_is_given_is_the_fault_of_its_caller(ours: Path) -> None:
    port = everything(ours)
    port["head.input"] += 0.1
    first = against(ours, port).first
    assert first is not None
    assert (first.call.name, first.kind) == ("", "own code")
    assert first.before is not None
    assert first.before.name == "head"
    assert first.is_certain


def test_a_module_that_returns_the_right_thing_all_the_same_is_told(ours: Path) -> None:
    port = everything(ours)
    within = "blocks.0.fc1.output"
    port[within] = port[within] + 1
    report = of_comparison(against(ours, port), whole=False)
    assert report.exit_code == 7
    (finding,) = report.findings
    assert finding.tensor == within
    assert finding.hint is not None
    assert finding.hint.startswith("blocks.0.output agrees all the same")
    for name in ("blocks.0.output", "output"):
        port[name] = port[name] + 1
    (finding,) = of_comparison(against(ours, port), whole=False).findings
    assert finding.hint is None


def test_other_inputs_are_said_first(ours: Path) -> None:
    trace(Network(), {"ids": IDS.flip(0)}, ours.with_name("port.safetensors"))
    comparison = api.compare(ours, ours.with_name("port.safetensors"))
    assert comparison.inputs == "differ"
    assert comparison.first is not None
    assert comparison.first.kind == "inputs"
    report = of_comparison(comparison, whole=False)
    assert codes(report) == ["inputs"]
    assert report.findings[0].what.startswith("the inputs differ")
    assert report.text.splitlines()[1].split()[0] == "inputs"
    assert "DIFFERENT" in report.text.splitlines()[1]


def test_some_names_are_enough_and_the_doubt_that_they_leave_is_told(ours: Path) -> None:
    port = {"blocks.0.output": load_file(ours)["blocks.0.output"]}
    assert against(ours, port).holds
    port["blocks.1.output"] = load_file(ours)["blocks.1.output"] + 1
    comparison = against(ours, port)
    assert comparison.inputs == "unknown"
    first = comparison.first
    assert first is not None
    assert first.call.name == "blocks.1"
    assert not first.is_certain
    suspects = ["blocks.1.fc1", "blocks.1.fc2", "", "embedding"]
    assert [call.name for call in first.suspects] == suspects
    assert first.unknown[:2] == ("blocks.1.fc1.output", "blocks.1.fc2.output")
    assert "blocks.1.input.mask" in first.unknown
    assert "blocks.1.input.x" not in first.unknown  # it is what blocks.0 returned
    finding = of_comparison(comparison, whole=False).findings[0]
    assert "blocks.1.fc1 (Linear), blocks.1.fc2 (Linear), the network itself" in finding.what
    assert "have these in the other file: blocks.1.fc1.output" in (finding.hint or "")


def test_the_doubt_goes_as_far_as_what_is_unknown_comes_from(ours: Path) -> None:
    held = load_file(ours)
    names = ("embedding.output", "blocks.0.output", "blocks.1.fc1.output")
    port = {name: held[name] for name in names}
    port["blocks.1.fc2.output"] = held["blocks.1.fc2.output"] + 1
    first = against(ours, port).first
    assert first is not None
    # What fc2 takes is made by blocks.1, from what fc1 returned and a mask that the network made.
    assert first.call.name == "blocks.1.fc2"
    assert [call.name for call in first.suspects] == ["blocks.1", ""]
    assert first.unknown == (
        "blocks.1.fc2.input",
        "blocks.1.input.mask",
        "input.ids",
    )
    del port["blocks.1.fc1.output"]
    port["input.ids"] = held["input.ids"]
    first = against(ours, port).first
    assert first is not None
    assert [call.name for call in first.suspects] == ["blocks.1", "blocks.1.fc1", ""]


def test_the_names_that_are_asked_for_end_the_doubt(ours: Path) -> None:
    whole = everything(ours)
    whole["blocks.1.fc2.input"] += 1
    port = {"blocks.1.output": whole["blocks.1.output"] + 1}
    asked = 0
    while (first := against(ours, port).first) is not None and first.unknown:
        port |= {name: whole[name] for name in first.unknown}
        asked += 1
        assert asked < 5
    assert first is not None
    assert first.call.name == "blocks.1"
    assert first.before is not None
    assert first.before.name == "blocks.1.fc2"
    assert first.is_certain


def test_a_trace_of_some_modules_says_that_there_are_others(ours: Path) -> None:
    for name, shift in (("some", 0.0), ("other", 0.5)):
        network = Network()
        network.blocks[1].fc1.bias.data += shift  # type: ignore[union-attr, operator]
        trace(network, {"ids": IDS}, ours.with_name(f"{name}.safetensors"), only=["head"])
    comparison = api.compare(
        ours.with_name("some.safetensors"), ours.with_name("other.safetensors")
    )
    assert comparison.first is not None
    assert comparison.first.call.name == ""
    assert not comparison.first.is_certain
    finding = of_comparison(comparison, whole=False).findings[0]
    assert finding.what.endswith("(Network), or one of its modules that the trace leaves out")
    assert finding.hint == "not all of its modules are in the trace: record it without --only"


def test_what_is_missing_counts_only_when_all_is_asked_for(ours: Path) -> None:
    port = everything(ours)
    del port["head.output"]
    assert against(ours, port).holds
    complete = against(ours, port, complete=True)
    assert not complete.holds
    report = of_comparison(complete, whole=False)
    assert (report.exit_code, codes(report)) == (7, ["missing"])
    assert report.findings[0].tensor == "head.output"


def test_another_shape_parts_and_another_dtype_is_shown(ours: Path) -> None:
    port = everything(ours)
    port["blocks.0.fc1.output"] = port["blocks.0.fc1.output"].double()
    comparison = against(ours, port)
    assert comparison.holds
    whole = of_comparison(comparison, whole=True).text
    assert "F32 [4, 6] ↔ F64 [4, 6]" in whole
    port["blocks.0.fc1.output"] = port["blocks.0.fc1.output"][None]
    comparison = against(ours, port)
    assert comparison.first is not None
    assert comparison.first.call.name == "blocks.0.fc1"
    finding = of_comparison(comparison, whole=False).findings[0]
    assert (finding.expected, finding.got) == ("F32 [4, 6]", "F64 [1, 4, 6], another shape")


def test_names_are_mapped_and_others_are_told(ours: Path, tmp_path: Path) -> None:
    held = load_file(ours)
    port = {f"h.{i}.out": held[f"blocks.{i}.output"] for i in range(2)} | {"stray": held["output"]}
    names = tmp_path / "names.yaml"
    names.write_text('"h.{i}.out": "blocks.{i}.output"\n')
    comparison = against(ours, port, names=names)
    assert comparison.count("equal") == 2
    assert comparison.extra == ("stray",)
    report = of_comparison(comparison, whole=False)
    assert (report.exit_code, codes(report)) == (0, ["extra"])
    assert report.findings[0].severity == "warning"


def test_files_without_a_common_name_are_not_equal(ours: Path) -> None:
    with pytest.raises(MismatchError, match="no name in common") as raised:
        against(ours, {"h.0.out": torch.ones(3)})
    assert "--map" in (raised.value.findings[0].hint or "")


def test_the_first_file_must_be_a_trace(ours: Path) -> None:
    save_file(load_file(ours), ours.with_name("plain.safetensors"))
    with pytest.raises(SourceError, match="not a trace") as raised:
        api.compare(ours.with_name("plain.safetensors"), ours)
    assert raised.value.findings[0].hint == "give the other file first"


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_tolerance_is_a_number_from_0_on(ours: Path, value: float) -> None:
    with pytest.raises(UsageError, match="rtol is not a tolerance"):
        api.compare(ours, ours, rtol=value)


def test_a_header_alone_has_nothing_to_compare(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "header.json").write_text('{"output": {"dtype": "F32", "shape": [4, 3]}}')
    with pytest.raises(SourceError, match="no values"):
        api.compare(ours, tmp_path / "header.json")


def test_the_table_shows_what_is_around_the_first_or_all_of_it(ours: Path) -> None:
    port = everything(ours)
    port["blocks.1.fc1.output"] += 0.1
    comparison = against(ours, port)
    lines = of_comparison(comparison, whole=False).text.splitlines()
    (arrow,) = [line for line in lines if line.startswith("→")]
    assert arrow.split()[1:6] == ["blocks.1.fc1.output", "F32", "[4,", "6]", "PARTS"]
    assert any(line.strip().startswith("blocks.1.fc1.input") for line in lines)
    assert not any("embedding" in line for line in lines)
    whole = of_comparison(comparison, whole=True).text.splitlines()
    assert len(whole) - len(lines) > 10
    assert any("embedding" in line for line in whole)


def test_other_weights_are_noticed(ours: Path, tmp_path: Path) -> None:
    for digit in "01":
        path = tmp_path / f"{digit}.safetensors"
        trace(Network(), {"ids": IDS}, path, model="toy", content_sha256=digit * 64)
    comparison = api.compare(tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    assert comparison.holds
    assert codes(of_comparison(comparison, whole=False)) == ["weights"]
