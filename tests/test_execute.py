import hashlib
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import HEAD, convert, one, refusal, toy_tensors, write_rules, write_source

from converter import api, execute, target
from converter.errors import ConverterError, ExecutionError
from converter.plan import Plan, shards_of
from converter.runtime import load_tensors
from converter.source import Source, open_source
from converter.steps.step import Tensors
from converter.steps.transpose import Transpose
from converter.target import Written


class Outcome:
    """What an execution wrote, by name, and what it said of it."""

    def __init__(self, plan: Plan, source: Source, *, jobs: int = 1) -> None:
        self.data: dict[str, bytes] = {}
        self.threads: set[int] = set()
        self.written: dict[str, Written] = execute.execute(
            plan, source, self.write, jobs=jobs, progress=lambda done, total: None
        )

    def write(self, name: str, begin: int, data: memoryview) -> None:
        assert len(self.data.setdefault(name, b"")) == begin, "it is written in order, once"
        self.data[name] += bytes(data)
        self.threads.add(threading.get_ident())


def planned(folder: Path, tensors: dict[str, Tensor], rules: str) -> tuple[Plan, Source]:
    source = write_source(folder, tensors)
    return api.plan(source, rules=write_rules(folder, rules)), open_source(source)


def many(count: int) -> tuple[dict[str, Tensor], str]:
    """Return ``count`` tensors and rules that take them as they are."""
    tensors = {f"w{n}": torch.full((3,), float(n)) for n in range(count)}
    rule = "{from: 'w{i}', to: {'w{i}': [3]}}"
    return tensors, f"dtypes: [F32]\nindex: {{i: {count}}}\nrules: [{rule}]\n"


# What is written


@pytest.mark.parametrize("jobs", [1, 4])
def test_every_target_is_written_once_with_the_digest_of_its_bytes(
    tmp_path: Path, jobs: int
) -> None:
    tensors, rules = many(40)
    plan, source = planned(tmp_path, tensors, rules)
    with source:
        outcome = Outcome(plan, source, jobs=jobs)
    assert outcome.data == {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    assert list(outcome.written) == list(tensors)
    for name, written in outcome.written.items():
        assert written.sha256 == hashlib.sha256(outcome.data[name]).hexdigest()
        assert written.pieces == ()


def test_as_many_files_are_filled_side_by_side_as_are_digested(tmp_path: Path) -> None:
    tensors, rules = many(7)
    plan, source = planned(tmp_path, tensors, rules)
    plan = replace(plan, shards=shards_of(plan.bindings, 24))  # two tensors of 12 bytes in each
    with source:
        assert list(Outcome(plan, source, jobs=2).written) == list(tensors)
    for files, expected in [(1, "0123456"), (2, "0213465"), (3, "0241356"), (9, "0246135")]:
        turns = execute._in_turns(plan, files=files)
        assert "".join(name[1:] for binding in turns for name in binding.targets) == expected


def test_what_lies_at_the_end_of_a_file_is_made_last(tmp_path: Path) -> None:
    sizes = {"odd": 3, "whole": 64, "stray": 5, "other": 128}  # in files, whole 256 bytes go first
    rules = "".join(f"  - {{from: {name}, to: {{{name}: [{n}]}}}}\n" for name, n in sizes.items())
    tensors = {name: torch.zeros(n) for name, n in sizes.items()}
    plan, source = planned(tmp_path, tensors, f"dtypes: [F32]\nrules:\n{rules}")
    with source:
        assert list(Outcome(plan, source, jobs=2).written) == list(sizes)
    (shard,) = plan.shards
    turns = execute._in_turns(plan, files=2)
    made = [name for binding in turns for name in binding.targets]
    assert made == [placement.name for placement in shard.placements] != list(sizes)


def test_a_tensor_larger_than_a_piece_has_the_digest_of_each_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "PIECE_BYTES", 8)
    monkeypatch.setattr(target, "CHUNK_BYTES", 4)
    tensors = {"w": torch.arange(5, dtype=torch.float32)}
    plan, source = planned(tmp_path, tensors, one("F32", "[5]"))
    with source:
        outcome = Outcome(plan, source)
    data = outcome.data["w"]
    assert outcome.written["w"].pieces == tuple(
        hashlib.sha256(part).hexdigest() for part in (data[:8], data[8:16], data[16:])
    )


def test_a_tensor_as_large_as_a_piece_has_one_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "PIECE_BYTES", 8)
    monkeypatch.setattr(target, "CHUNK_BYTES", 4)
    plan, source = planned(tmp_path, {"w": torch.zeros(2)}, one("F32", "[2]"))
    with source:
        assert Outcome(plan, source).written["w"].pieces == ()


def test_a_strided_result_is_written_in_row_major_order(tmp_path: Path) -> None:
    tensors = {"w": torch.arange(6, dtype=torch.float32).view(2, 3)}
    plan, source = planned(tmp_path, tensors, one("F32", "[3, 2]", "steps: [transpose]"))
    with source:
        data = Outcome(plan, source).data["w"]
    assert data == tensors["w"].t().contiguous().numpy().tobytes()


def test_a_dtype_narrower_than_a_byte_is_moved_whole(tmp_path: Path) -> None:
    path = tmp_path / "toy.safetensors"
    header = b'{"w":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}   '
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x12\xff")
    plan = api.plan(path, rules=write_rules(tmp_path, one("F4", "[4]")))
    with open_source(path) as source:
        outcome = Outcome(plan, source)
    assert outcome.data["w"] == b"\x12\xff"
    assert outcome.written["w"].stats is None


def test_a_step_that_breaks_its_promise_is_a_defect_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget(self: Transpose, inputs: Tensors) -> Tensors:
        return inputs

    plan, source = planned(
        tmp_path, {"w": torch.zeros(2, 3)}, one("F32", "[3, 2]", "steps: [transpose]")
    )
    monkeypatch.setattr(Transpose, "apply", forget)
    with source, pytest.raises(ExecutionError, match="something else than it inferred") as caught:
        Outcome(plan, source)
    assert caught.value.findings[0].tensor == "w"
    assert str(tmp_path / "toy.yaml") in str(caught.value.findings[0].where)


def test_what_has_not_begun_is_left_undone_when_a_source_ends(tmp_path: Path) -> None:
    plan, source = planned(tmp_path, *many(200))
    reads: list[str] = []

    class Ending:
        header = source.header

        def read_into(self, name: str, buffer: memoryview, begin: int = 0) -> None:
            reads.append(name)
            if len(reads) == 2:
                raise ConverterError("the file ends")
            source.read_into(name, buffer, begin)

    with source, pytest.raises(ConverterError, match="the file ends"):
        Outcome(plan, Ending())  # type: ignore[arg-type]
    assert len(reads) < 200


# What is refused


def test_every_refused_tensor_is_named_at_once(tmp_path: Path) -> None:
    tensors = toy_tensors()
    tensors["net.embedding"][0, 0] = torch.nan
    tensors["net.layers.0.qkv"][0] = torch.inf
    tensors["net.layers.1.qkv"][4:] = -torch.inf
    tensors["net.positions"][3] = 7
    error = refusal(tmp_path, tensors)
    assert error.exit_code == 6
    found = {str(finding.tensor): finding for finding in error.findings}
    assert {name: finding.code for name, finding in found.items()} == {
        "net.positions": "expect",
        "net.head": "expect",
        "embedding.weight": "nonfinite",
        "blocks.0.q.weight": "nonfinite",
        "blocks.1.k.weight, blocks.1.v.weight": "nonfinite",
    }
    assert found["blocks.0.q.weight"].got == "4 of 16 values are not"
    assert all(str(tmp_path / "toy.yaml") in str(f.where) for f in error.findings)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.complex64])
def test_nan_is_refused_in_every_dtype_that_has_it(tmp_path: Path, dtype: torch.dtype) -> None:
    names = {torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3", torch.complex64: "C64"}
    tensors = {"w": torch.tensor([1.0, torch.nan]).to(dtype)}
    error = refusal(tmp_path, tensors, one(names[dtype], "[2]"))
    assert [(f.code, f.got) for f in error.findings] == [("nonfinite", "1 of 2 values are not")]


def test_nan_may_be_allowed_by_name_and_is_counted(tmp_path: Path) -> None:
    tensors = {"w": torch.tensor([1.0, torch.nan, torch.inf])}
    manifest = convert(tmp_path, tensors, one("F32", "[3]") + "allow_nan: [w]\n").manifest
    assert manifest.tensors[0].stats is not None
    assert manifest.tensors[0].stats.nonfinite == 2
    assert load_tensors(tmp_path / "out")["w"].isnan().tolist() == [False, True, False]


def test_a_cast_that_overflows_is_refused_with_the_value(tmp_path: Path) -> None:
    error = refusal(tmp_path, {"w": torch.tensor([1.0, 70000.0])}, one("F32", "[2]"), dtype="f16")
    assert error.exit_code == 6
    (finding,) = error.findings
    assert (finding.tensor, finding.got) == ("w", "70000.0")
    assert finding.what == "cast: 1 of 2 values overflow F16"


@pytest.mark.parametrize("steps", ["", "steps: [{cast: {dtype: F32}}]"])
def test_a_boolean_that_is_neither_0_nor_1_is_refused(tmp_path: Path, steps: str) -> None:
    tensors = {"w": torch.tensor([0, 1, 2], dtype=torch.uint8).view(torch.bool)}
    error = refusal(tmp_path, tensors, one("BOOL", "[3]", steps))
    assert error.exit_code == 6
    assert [(f.code, f.tensor, f.got) for f in error.findings] == [
        ("boolean", "w", "1 of 3 bytes are not")
    ]


def dropping(expect: str) -> str:
    return one("F32", "[1]") + f"drop: [{{name: x, expect: {expect}, because: not needed}}]\n"


DTYPES = [
    torch.uint8,
    torch.int16,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_ramp_is_proven_in_any_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"w": torch.zeros(1), "x": torch.arange(8).view(2, 4).to(dtype)}
    manifest = convert(tmp_path, tensors, dropping("arange")).manifest
    assert manifest.dropped[0].proven == "arange"


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bool], ids=str)
def test_a_triangle_is_proven_in_any_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"w": torch.zeros(1), "x": torch.ones(1, 1, 4, 4).tril().to(dtype)}
    manifest = convert(tmp_path, tensors, dropping("lower_triangular")).manifest
    assert manifest.dropped[0].proven == "lower_triangular"


@pytest.mark.parametrize(
    ("expect", "value", "got"),
    [
        (
            "arange",
            torch.tensor([0, 1, 3]),
            "1 of 3 values differ, the first at position 2: 3, not 2",
        ),
        (
            "arange",
            torch.tensor([0.0, torch.nan]),
            "1 of 2 values differ, the first at position 1: nan, not 1.0",
        ),
        # 257 is no number of BF16: what the file holds is 256.
        (
            "arange",
            torch.arange(258).bfloat16(),
            "1 of 258 values differ, the first at position 257: 256.0, not 257.0",
        ),
        ("arange", torch.zeros(2, dtype=torch.complex64), "complex numbers"),
        (
            "lower_triangular",
            torch.ones(2, 2),
            "1 of 4 values differ, the first at position 1: 1.0, not 0.0",
        ),
        (
            "arange",
            torch.tensor([-0.0]),
            "1 of 1 values differ, the first at position 0: -0.0, not 0.0",
        ),
        ("{equals: w}", torch.tensor([-0.0]), "another byte at 3 of 4"),
    ],
)
def test_a_drop_that_is_not_what_the_rule_says_is_refused(
    tmp_path: Path, expect: str, value: Tensor, got: str
) -> None:
    error = refusal(tmp_path, {"w": torch.zeros(1), "x": value}, dropping(expect))
    assert error.exit_code == 6
    (finding,) = error.findings
    assert (finding.code, finding.tensor, finding.got) == ("expect", "x", got)


def test_findings_that_differ_in_a_number_only_are_folded(tmp_path: Path) -> None:
    tensors, rules = many(12)
    broken = {name: tensor * torch.nan for name, tensor in tensors.items()}
    (finding,) = refusal(tmp_path, broken, rules).findings
    assert finding.tensor == "w{0..11}"


def test_a_value_is_refused_whatever_the_number_of_workers(tmp_path: Path) -> None:
    tensors, rules = many(12)
    tensors["w7"][0] = tensors["w3"][1] = torch.nan
    plan, source = planned(tmp_path, tensors, rules)
    with source:
        texts = []
        for jobs in (1, 3):
            with pytest.raises(ConverterError) as caught:
                Outcome(plan, source, jobs=jobs)
            texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_a_plan_with_nothing_to_do_is_done(tmp_path: Path) -> None:
    plan, source = planned(tmp_path, *many(1))
    with source:
        assert Outcome(replace(plan, bindings=()), source).written == {}


def test_the_callers_treatment_of_tiny_numbers_changes_no_byte(tmp_path: Path) -> None:
    rules = """
        dtypes: [F32]
        rules:
          - from: [g, v]
            steps: [fold_weight_norm: {dim: 0}]
            to: {w: [1, 2]}
        """
    source = write_source(tmp_path, {"g": torch.tensor([[1e-39]]), "v": torch.tensor([[3.0, 4.0]])})
    chosen = write_rules(tmp_path, HEAD + textwrap.dedent(rules))
    digests = set()
    for flush in (False, True):
        torch.set_flush_denormal(flush)
        try:
            made = api.convert(source, tmp_path / f"out{flush}", rules=chosen, jobs=1)
        finally:
            torch.set_flush_denormal(False)
        digests.add(made.manifest.content_sha256)
    assert len(digests) == 1
