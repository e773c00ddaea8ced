import json
from pathlib import Path

import pytest
import torch
from toy import convert, toy_tensors, write_rules, write_source

from converter import api, report
from converter.errors import PlanError
from converter.finding import Finding
from converter.plan import Plan
from converter.report import Report

NORMS = {f"net.layers.{i}.norm": torch.ones(4) for i in range(2)}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("toy")
    return api.plan(write_source(folder, toy_tensors()), rules=write_rules(folder))


# The envelope


def test_json_is_one_line_of_ascii() -> None:
    answer = Report("plan", "", {"name": "größe\n→"}, (Finding("code", "what – it is"),), 5)
    text = answer.as_json()
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text) == {
        "command": "plan",
        "ok": False,
        "exit_code": 5,
        "findings": [{"code": "code", "what": "what – it is", "severity": "error"}],
        "result": {"name": "größe\n→"},
    }


# Plans


def test_a_plan_says_what_it_uses_makes_and_leaves_out(plan: Plan) -> None:
    lines = report.of_plan(plan, table=False, whole=False).text.splitlines()
    assert lines == [
        "toy: A toy with one of everything",
        "  source    10 tensors used, 2 dropped, 1 out of scope",
        "  target    14 tensors, 164 parameters, 651 B F32/I64/BOOL",
        "  files     model.safetensors",
        "  dropped   1 tensor: rebuilt by the network (net.positions)",
        "            1 tensor: the head is tied (net.head)",
        "  stand-in  2 tensors: ones (blocks.{0..1}.norm.weight)",
        "  alias     head.weight is embedding.weight",
    ]


def test_a_table_has_a_row_for_each_source_and_target_and_folds_numbers(plan: Plan) -> None:
    text = report.of_plan(plan, table=True, whole=False).text.split("\n\n")[1]
    rows = [line.split("  ") for line in text.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells[0] == ["net.embedding F32 [6, 4]", "→", "embedding.weight F32 [6, 4]"]
    assert cells[1] == [
        "net.layers.{0..1}.qkv F32 [12, 4]",
        "→ split {dim: 0, sizes: [4, 4, 4]}",
        "blocks.{0..1}.q.weight F32 [4, 4]",
    ]
    assert cells[2] == ["→", "blocks.{0..1}.k.weight F32 [4, 4]"]
    assert ["→ ones for net.layers.{0..1}.norm", "blocks.{0..1}.norm.weight F32 [4]"] in cells


def test_a_whole_table_names_every_tensor(plan: Plan) -> None:
    text = report.of_plan(plan, table=True, whole=True).text
    names = {name for binding in plan.bindings for name in (*binding.sources, *binding.targets)}
    assert all(f"{name} " in text for name in names)
    assert "{" not in text.replace("split {", "").replace("fold_weight_norm {", "").split("\n\n")[1]


def test_a_plan_as_data_holds_every_binding(plan: Plan) -> None:
    result = report.of_plan(plan, table=False, whole=False).result
    assert result["stand_ins"] == [
        {"name": f"blocks.{i}.norm.weight", "value": "ones"} for i in range(2)
    ]
    bindings = result["bindings"]
    assert isinstance(bindings, list)
    assert len(bindings) == len(plan.bindings)
    assert bindings[1] == {
        "sources": [{"name": "net.layers.0.qkv", "dtype": "F32", "shape": [12, 4]}],
        "steps": [{"split": {"dim": 0, "sizes": [4, 4, 4]}}],
        "targets": [
            {"name": f"blocks.0.{word}.weight", "dtype": "F32", "shape": [4, 4]} for word in "qkv"
        ],
    }


def test_the_title_names_the_variants_that_were_chosen() -> None:
    header = Path(__file__).parent / "headers" / "bert-base-uncased.json"
    made = api.plan(header, model="bert", variant="legacy,pretraining,base")
    title = report.of_plan(made, table=False, whole=False).text.splitlines()[0]
    assert title.startswith("bert (base, legacy, pretraining): ")


# Conversions and checks


def test_a_conversion_says_what_was_read_made_and_written(tmp_path: Path) -> None:
    conversion = convert(tmp_path, toy_tensors() | NORMS)
    answer = report.of_conversion(conversion)
    keys = [line[2:11].strip() for line in answer.text.splitlines()[1:]]
    assert keys == ["read", "made", "wrote", "time", "manifest", "content"]
    assert "toy.safetensors" in answer.text
    assert conversion.manifest.content_sha256 in answer.text
    assert answer.result["totals"] == {"tensors": 14, "parameters": 164, "bytes": 651}
    assert answer.exit_code == 0


# What strangers wrote


def test_a_finding_shows_names_that_cannot_be_printed_as_escapes(tmp_path: Path) -> None:
    (tmp_path / "header.json").write_text('{"w": {"dtype": "F32", "shape": [1]}}')
    with pytest.raises(PlanError) as caught:
        api.plan(tmp_path / "header.json", rules=write_rules(tmp_path), source_prefix="\x1b[2J")
    assert "\x1b" not in str(caught.value)
