"""NaN and infinity: refused by name wherever a canonical tensor would hold them, and there only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import convert, one, refusal

from converter import api
from converter.finding import Finding
from converter.runtime import load_tensors

NAN, INF = torch.nan, torch.inf

BLOCKS = """
dtypes: [F32]
index: {i: 4}
rules:
  - from: layers.{i}.w
    to: {"blocks.{i}.w": [2, 3]}
"""


def blocks(*strange: int) -> dict[str, Tensor]:
    """Four tensors; those of ``strange`` numbers hold one NaN."""
    tensors = {f"layers.{i}.w": torch.arange(6.0).view(2, 3) + i for i in range(4)}
    for number in strange:
        tensors[f"layers.{number}.w"][1, 2] = NAN
    return tensors


def refused(folder: Path, tensors: dict[str, Tensor], rules: str) -> Finding:
    error = refusal(folder, tensors, rules)
    (finding,) = error.findings
    assert (error.exit_code, finding.code) == (6, "nonfinite")
    return finding


def test_all_that_hold_one_are_named_at_once(tmp_path: Path) -> None:
    finding = refused(tmp_path, blocks(0, 2, 3), BLOCKS)
    assert finding.tensor == "blocks.{0,2..3}.w"
    assert finding.got == "1 of 6 values are not"


def test_a_pattern_allows_it_for_every_value_of_its_index(tmp_path: Path) -> None:
    rules = BLOCKS + 'allow_nan: ["blocks.{i}.w"]\n'
    manifest = convert(tmp_path, blocks(0, 1, 2, 3), rules).manifest
    assert [record.stats.nonfinite for record in manifest.tensors if record.stats] == [1] * 4


@pytest.mark.parametrize("name", ["blocks.2.w", "blocks.{4 - 2}.w"])
def test_a_name_allows_it_for_no_other(tmp_path: Path, name: str) -> None:
    rules = BLOCKS + f'allow_nan: ["{name}"]\n'
    assert refused(tmp_path, blocks(1, 2), rules).tensor == "blocks.1.w"
    convert(tmp_path, blocks(2), rules)


def test_a_name_of_the_source_allows_nothing(tmp_path: Path) -> None:
    rules = BLOCKS + 'allow_nan: ["layers.{i}.w"]\n'
    error = refusal(tmp_path, blocks(1), rules)
    assert error.exit_code == 3
    assert {finding.what for finding in error.findings} == {"allow_nan names no canonical tensor"}


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("at", [0, 262_143, 262_144, 699_999])
@pytest.mark.parametrize("steps", ["", "steps: [cast: {dtype: BF16}]", "steps: [transpose]"])
def test_one_value_anywhere_is_found(tmp_path: Path, at: int, value: float, steps: str) -> None:
    tensor = torch.zeros(700, 1000)
    tensor.view(-1)[at] = value
    shape = "[1000, 700]" if "transpose" in steps else "[700, 1000]"
    finding = refused(tmp_path, {"w": tensor}, one("F32", shape, steps))
    assert finding.got == "1 of 700000 values are not"


def test_what_is_dropped_may_hold_it(tmp_path: Path) -> None:
    dropped = torch.tensor([NAN, INF])
    rules = one("F32", "[1]") + (
        "drop:\n  - {name: d, because: no use}\n"
        "  - {name: e, expect: {equals: d}, because: the same}\n"
    )
    convert(tmp_path, {"w": torch.ones(1), "d": dropped, "e": dropped.clone()}, rules)


def test_what_is_dropped_as_a_ramp_may_not(tmp_path: Path) -> None:
    rules = one("F32", "[1]") + "drop:\n  - {name: d, expect: arange, because: a ramp}\n"
    error = refusal(tmp_path, {"w": torch.ones(1), "d": torch.tensor([0.0, NAN])}, rules)
    assert (error.exit_code, error.findings[0].code) == (6, "expect")


def test_what_is_out_of_scope_may_hold_it(tmp_path: Path) -> None:
    rules = "scope: net.\n" + one("F32", "[1]")
    convert(tmp_path, {"net.w": torch.ones(1), "head": torch.tensor([NAN])}, rules)


def test_what_a_slice_leaves_out_may_hold_it(tmp_path: Path) -> None:
    slice_ = "steps: [slice: {dim: 0, start: 0, stop: 2, because: the rest is padding}]"
    convert(tmp_path, {"w": torch.tensor([1.0, 2.0, NAN])}, one("F32", "[2]", slice_))


def test_only_the_part_that_holds_it_is_refused(tmp_path: Path) -> None:
    rules = """
dtypes: [F32]
rules:
  - from: w
    steps: [split: {dim: 0, sizes: [1, 2]}]
    to: {a: [1], b: [2]}
"""
    tensor = torch.tensor([1.0, 2.0, INF])
    assert refused(tmp_path, {"w": tensor}, rules).tensor == "b"
    convert(tmp_path, {"w": tensor}, rules + "allow_nan: [b]\n")


def test_integers_hold_none_whatever_their_bytes(tmp_path: Path) -> None:
    nan = torch.tensor([NAN, INF]).view(torch.int32)
    convert(tmp_path, {"w": nan}, one("I32", "[2]"))


def test_no_integer_is_made_of_it_even_where_it_is_allowed(tmp_path: Path) -> None:
    rules = one("F32", "[1]", "steps: [cast: {dtype: I64}]") + "allow_nan: [w]\n"
    error = refusal(tmp_path, {"w": torch.tensor([NAN])}, rules)
    assert (error.exit_code, error.findings[0].code) == (6, "values")


def test_no_weight_is_folded_of_it_even_where_it_is_allowed(tmp_path: Path) -> None:
    rules = """
dtypes: [F32]
rules:
  - from: [g, v]
    steps: [fold_weight_norm: {dim: 0}]
    to: {w: [1, 2]}
allow_nan: [w]
"""
    tensors = {"g": torch.tensor([[NAN]]), "v": torch.ones(1, 2)}
    assert refusal(tmp_path, tensors, rules).findings[0].code == "values"


def test_what_is_allowed_is_carried_and_loaded_as_it_is(tmp_path: Path) -> None:
    bits = torch.tensor([0x7FC00001, 0x7F800001, -0x400000, 0x7F800000], dtype=torch.int32)
    made = convert(tmp_path, {"w": bits.view(torch.float32)}, one("F32", "[4]") + "allow_nan: [w]")
    loaded = load_tensors(made.out, device="cpu", check="full")
    assert loaded["w"].view(torch.int32).tolist() == bits.tolist()
    assert api.verify(made.out).holds


def test_a_cast_of_what_is_allowed_makes_one_nan_of_all(tmp_path: Path) -> None:
    bits = torch.tensor([0x7FC00001, 0x7F800001, -0x400000], dtype=torch.int32)
    rules = one("F32", "[3]", "steps: [cast: {dtype: F16}]") + "allow_nan: [w]"
    made = convert(tmp_path, {"w": bits.view(torch.float32)}, rules)
    loaded = load_tensors(made.out, device="cpu")["w"]
    assert loaded.isnan().all()
    assert len(set(loaded.view(torch.int16).tolist())) == 1
