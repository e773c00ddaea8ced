"""What must be refused, as a user meets it: the exit code, every finding, and nothing behind."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner
from tiny_rules import text

from converter import api
from converter.canonical import arrange, encode_header
from converter.cli import main
from converter.spec import Header, TensorSpec

S2MEL = api.inspect(Path(__file__).parent / "headers" / "s2mel.json").header
BARE = {name.removeprefix("net."): spec for name, spec in S2MEL.items()}
LAYER = "cfm.estimator.transformer.layers.{}."
FLOAT = "F32 or F16 or BF16"

Finding: TypeAlias = Mapping[str, str]
Change: TypeAlias = Callable[[Header], Header]


def run(*arguments: str | Path) -> tuple[int, list[Finding]]:
    """Run a command and return its exit code and its findings."""
    done = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    report: Any = json.loads(done.stdout)
    assert done.exit_code == report["exit_code"]
    return done.exit_code, report["findings"]


def write(path: Path, header: Header) -> Path:
    """Write a checkpoint of zeros, which take no room on the disk."""
    placements = arrange(header.items())
    head = encode_header(placements)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + max(placement.end for placement in placements))
    return path


def refused(folder: Path, header: Header, *options: str) -> list[Finding]:
    """Return why a checkpoint is not converted, and that nothing is left behind."""
    source = write(folder / "in.safetensors", header)
    exit_code, findings = run("convert", "--model", "dit", source, folder / "out", *options)
    assert exit_code == 5
    assert list(folder.iterdir()) == [source]
    return findings


def without(*prefixes: str) -> Change:
    return lambda header: {n: s for n, s in header.items() if not n.startswith(prefixes)}


def renamed(rename: Callable[[str], str]) -> Change:
    return lambda header: {rename(name): spec for name, spec in header.items()}


def with_tensor(name: str, dtype: str, *shape: int) -> Change:
    return lambda header: {**header, name: TensorSpec(dtype, shape)}


def with_layer(number: int, like: int) -> Change:
    def change(header: Header) -> Header:
        old, new = LAYER.format(like), LAYER.format(number)
        return {**header, **{n.replace(old, new): s for n, s in header.items() if old in n}}

    return change


def shifted(name: str) -> str:
    for number in range(13):
        if name.startswith(LAYER.format(number)):
            return name.replace(LAYER.format(number), LAYER.format(number + 1))
    return name


def padded(name: str) -> str:
    return name.replace(LAYER.format(3), LAYER.format("03"))


def tensors(code: str, findings: Sequence[Finding]) -> str:
    return ", ".join(finding["tensor"] for finding in findings if finding["code"] == code)


CHANGES: Mapping[str, tuple[Change, str, str, str, str]] = {
    "missing": (
        without(LAYER.format(3) + "attention.wo"),
        "missing",
        LAYER.format(3) + "attention.wo.weight",
        f"{FLOAT} [512, 512]",
        "no such name",
    ),
    "unexpected": (
        with_tensor("cfm.estimator.extra", "F32", 7),
        "unexpected",
        "cfm.estimator.extra",
        "nothing of this name",
        "F32 [7]",
    ),
    "shape": (
        with_tensor(LAYER.format(3) + "attention.wqkv.weight", "F32", 1537, 512),
        "shape",
        LAYER.format(3) + "attention.wqkv.weight",
        "[1536, 512]",
        "[1537, 512]",
    ),
    "hole": (
        without(LAYER.format(6)),
        "missing",
        LAYER.format(6) + "attention.wo.weight",
        f"{FLOAT} [512, 512]",
        "no such name",
    ),
    "a 14th block": (
        with_layer(13, like=12),
        "unexpected",
        LAYER.format(13) + "attention.wo.weight",
        "nothing of this name",
        "F32 [512, 512]",
    ),
    "shifted by one": (
        renamed(shifted),
        "missing",
        LAYER.format(0) + "attention.wo.weight",
        f"{FLOAT} [512, 512]",
        "no such name",
    ),
    "padded with zeros": (
        renamed(padded),
        "unexpected",
        LAYER.format("03") + "attention.wo.weight",
        "nothing of this name",
        "F32 [512, 512]",
    ),
    "dtype": (
        with_tensor(LAYER.format(3) + "attention.wo.weight", "F64", 512, 512),
        "dtype",
        LAYER.format(3) + "attention.wo.weight",
        FLOAT,
        "F64",
    ),
}


@pytest.mark.parametrize(
    ("change", "code", "tensor", "expected", "got"), CHANGES.values(), ids=CHANGES
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, change: Change, code: str, tensor: str, expected: str, got: str
) -> None:
    findings = refused(tmp_path, change(BARE))
    (finding,) = (f for f in findings if f["code"] == code and tensor in f["tensor"].split(", "))
    assert finding["expected"] == expected
    assert finding["got"] == got
    assert "dit.yaml" in finding["where"]


@pytest.mark.parametrize("change", [change for change, *_ in CHANGES.values()], ids=CHANGES)
def test_a_refusal_says_what_and_where_and_what_to_do(tmp_path: Path, change: Change) -> None:
    for finding in refused(tmp_path, change(BARE)):
        assert {"what", "where", "tensor", "expected", "got", "hint"} <= finding.keys()


def test_all_that_does_not_fit_is_listed_in_one_run(tmp_path: Path) -> None:
    header: Header = BARE
    for name in ("missing", "unexpected", "shape", "hole", "a 14th block", "dtype"):
        header = CHANGES[name][0](header)
    header = with_tensor(LAYER.format(9) + "attention.wo.weight", "F64", 512, 512)(header)
    findings = refused(tmp_path, header)
    assert {finding["code"] for finding in findings} == {"missing", "unexpected", "shape", "dtype"}
    assert LAYER.format("{3,9}") + "attention.wo.weight" in tensors("dtype", findings)
    assert LAYER.format(6) + "attention.wo.weight" in tensors("missing", findings)


def test_a_shift_is_told_from_a_hole(tmp_path: Path) -> None:
    findings = refused(tmp_path, renamed(shifted)(BARE))
    assert all(LAYER.format(0) in tensor for tensor in tensors("missing", findings).split(", "))
    assert all(LAYER.format(13) in tensor for tensor in tensors("unexpected", findings).split(", "))


def test_names_that_carry_a_prefix_are_refused_with_the_option(tmp_path: Path) -> None:
    (finding,) = refused(tmp_path, S2MEL)
    hint = "the names of the source begin with 'net.': add --source-prefix net."
    assert finding["hint"] == hint
    source = tmp_path / "in.safetensors"
    assert run("plan", "--model", "dit", "--source-prefix", "net.", source) == (0, [])


def test_a_prefix_that_no_name_carries_is_refused_with_the_option(tmp_path: Path) -> None:
    (finding,) = refused(tmp_path, BARE, "--source-prefix", "net.")
    assert finding["hint"] == "the names fit without 'net.': leave --source-prefix out"


def test_dims_that_break_a_requirement_are_refused(tmp_path: Path) -> None:
    findings = refused(tmp_path, BARE, "--set", "heads=7", "--set", "wavenet_hidden=100")
    assert [finding["code"] for finding in findings] == ["require", "require"]


EXPERTS = """
    dims: {experts: 4}
    index: {e: experts}
    rules:
      - from: layer.experts.{e}.weight
        gather: e
        steps:
          - stack: {dim: 0}
        to:
          layer.experts.weight: [experts, 2, 3]
    """


@pytest.mark.parametrize(
    ("numbers", "exit_code", "names"),
    [
        ((0, 1, 2, 3), 0, []),
        ((0, 1, 3), 5, ["layer.experts.2.weight"]),
        ((0, 1, 3, 4), 5, ["layer.experts.2.weight", "layer.experts.4.weight"]),
    ],
)
def test_experts_are_stacked_when_all_are_there_and_no_others(
    tmp_path: Path, numbers: Sequence[int], exit_code: int, names: Sequence[str]
) -> None:
    rules = tmp_path / "tiny.yaml"
    rules.write_text(text(EXPERTS))
    header = {f"layer.experts.{e}.weight": TensorSpec("F32", (2, 3)) for e in numbers}
    source = write(tmp_path / "in.safetensors", header)
    got, findings = run("plan", "--rules", rules, source)
    assert got == exit_code
    assert [finding["tensor"] for finding in findings] == names


RULES: Mapping[str, tuple[str, int, str]] = {
    "two sources for one target": (
        "rules:\n  - {from: a, to: {x: [1]}}\n  - {from: b, to: {x: [1]}}",
        3,
        "two sources for one target",
    ),
    "one source used twice": (
        "rules:\n  - {from: a, to: {x: [1]}}\n  - {from: a, to: {y: [1]}}",
        3,
        "one source tensor is used twice",
    ),
    "shapes that cannot add up": (
        "rules:\n  - from: a\n    steps:\n      - split: {dim: 0, sizes: [2, 2]}\n"
        "    to: {x: [2], y: [3]}",
        4,
        "the shapes cannot add up: split: output 1 is not of the stated size along dim 0",
    ),
    "unknown step": (
        "rules:\n  - from: a\n    steps:\n      - tranpose\n    to: {x: [1]}",
        4,
        "unknown step 'tranpose'",
    ),
    "unknown field": ("rule:\n  - from: a", 1, "the file has no field 'rule'"),
    "duplicate key": ("dims:\n  layers: 1\n  layers: 2", 3, "the key 'layers' stands twice"),
    "unknown dim": (
        "dims: {hidden: 1}\nrules:\n  - from: a\n    to:\n      x: [hiden]",
        5,
        "'hiden' in 'hiden' is no dim, derived name or index that holds here",
    ),
    "unbound placeholder": (
        "rules:\n  - from: a.{i}\n    to: {x: [1]}",
        2,
        "'i' in 'a.{i}' is no index, set, word or dim",
    ),
    "wrong step parameter": (
        "rules:\n  - from: a\n    steps:\n      - permute: {dims: [0, 2]}\n    to: {x: [1]}",
        4,
        "permute: dims is not a permutation",
    ),
    "bad range": ("index:\n  i: 1..2..3", 2, "index.i does not fit the schema"),
    "alias of nothing": (
        "alias:\n  - {name: x, of: y, because: z}",
        2,
        "x is an alias of no canonical tensor",
    ),
    "not YAML": ("dims: {a: 1\nindex: {i: 2}", 2, "not YAML: "),
    "unquoted brace": (
        "rules:\n  - from: {root}a\n    to: {x: [1]}",
        2,
        "{root} is read as a mapping",
    ),
}


@pytest.mark.parametrize(("body", "line", "what"), RULES.values(), ids=RULES)
def test_a_rule_file_that_is_wrong_by_itself_is_refused_with_its_line(
    tmp_path: Path, body: str, line: int, what: str
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(text(body))
    exit_code, findings = run("lint", path)
    assert exit_code == 3
    assert findings[0]["what"].startswith(what)
    assert findings[0]["where"] == f"{path}:{line}"
    assert all({"what", "where", "expected", "got", "hint"} <= f.keys() for f in findings)


@pytest.mark.parametrize(("body", "line", "what"), RULES.values(), ids=RULES)
def test_a_wrong_rule_file_converts_nothing(
    tmp_path: Path, body: str, line: int, what: str
) -> None:
    rules, source = tmp_path / "tiny.yaml", write(tmp_path / "in.safetensors", BARE)
    rules.write_text(text(body))
    exit_code, findings = run("convert", "--rules", rules, source, tmp_path / "out")
    assert exit_code == 3
    assert findings[0]["where"] == f"{rules}:{line}"
    assert sorted(tmp_path.iterdir()) == [source, rules]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("--model ditt in.json", "unknown model 'ditt'"),
        ("in.json", "exactly one of a model and a rule file is needed"),
        ("--model dit --rules x.yaml in.json", "exactly one of a model and a rule file is needed"),
        ("--model dit --variant hook in.json", "dit has no variant 'hook'"),
        ("--model dit --variant hooks,parametrizations in.json", "'hooks' and 'parametrizations'"),
        ("--model dit --set layer=5 in.json", "dit has no dim 'layer'"),
        ("--model dit --set ffn=5 in.json", "dit has no dim 'ffn'"),
        ("--model dit --set layers in.json", "not an assignment of a dim"),
        ("--model dit --set layers=5,6 in.json", "the dim 'layers' is of another kind"),
        ("--model dit --set layers=1.5 in.json", "a dim is a whole number, or a list of them"),
        ("--model dit --dims absent.yaml in.json", "cannot be read: "),
        ("--model dit --dtype f4 in.json", "'f4' is not a floating dtype"),
        ("--model dit --max-shard-size 5XB in.json", "not a size"),
    ],
)
def test_wrong_usage_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    header = {n: {"dtype": s.dtype, "shape": list(s.shape)} for n, s in BARE.items()}
    Path("in.json").write_text(json.dumps(header))
    exit_code, (finding,) = run("plan", *arguments.split())
    assert exit_code == 2
    assert finding["what"].startswith(what)


def test_a_rule_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    exit_code, (finding,) = run("lint", tmp_path / "absent.yaml")
    assert exit_code == 3
    assert finding["what"] == "the rule file cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "line"),
    [
        (["plan", "--model", "ditt", "in.json"], 2, "error: unknown model 'ditt'"),
        (["lint", "tiny.yaml"], 3, "error: tiny.yaml:1: the file has no field 'rule'"),
        (["plan", "--model", "dit", "absent.json"], 4, "error: absent.json: there is no such file"),
        (
            ["plan", "--model", "dit", "in.json"],
            5,
            "  hint:     the names of the source begin with",
        ),
    ],
)
def test_the_process_ends_with_the_exit_code_and_one_clear_error(
    tmp_path: Path, arguments: list[str], exit_code: int, line: str
) -> None:
    header = {n: {"dtype": s.dtype, "shape": list(s.shape)} for n, s in S2MEL.items()}
    (tmp_path / "in.json").write_text(json.dumps(header))
    (tmp_path / "tiny.yaml").write_text(text("rule: []"))
    done = subprocess.run(
        [sys.executable, "-m", "converter", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exit_code
    assert "Traceback" not in done.stderr
    assert any(shown.startswith(line) for shown in done.stderr.splitlines())
