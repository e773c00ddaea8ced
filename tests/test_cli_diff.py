"""The command line of diff: what it answers, as text and by the schema, and its exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
from click.testing import CliRunner
from doc_pages import follow
from numpy_files import cast, write
from test_without_torch import BARE, run_bare
from toy import convert, toy_tensors

from converter import api
from converter.cli import main
from converter.report_diff import of_comparison

A, B = "a.safetensors", "b.safetensors"

answer = partial(command_line.answer, "diff")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints that have everything, and a canonical directory."""
    made = tmp_path_factory.mktemp("diff")
    generator = np.random.default_rng(0)

    def array(*shape: int) -> Any:
        return generator.standard_normal(shape, dtype=np.float32)

    here, there = {}, {}
    for i in range(3):
        here[f"h.{i}.fc"] = array(4, 6)
        there[f"h.{i}.fc"] = np.ascontiguousarray(here[f"h.{i}.fc"].T)
        here[f"layers.{i}.q"] = there[f"blocks.{i + 1}.q"] = array(5)
        here[f"layers.{i}.bias"] = there[f"blocks.{i + 1}.b"] = np.zeros(3, np.float32)
        here[f"h.{i}.norm"] = array(7)
        there[f"h.{i}.norm"] = cast(here[f"h.{i}.norm"], "BF16")
        here[f"h.{i}.near"] = np.array([1, 2, 4], np.float32)
        there[f"h.{i}.near"] = np.array([1, 2, 4.5 + i], np.float32)
    here["same"] = there["same"] = array(2)
    here["flat"] = array(2, 2)
    there["flat"] = here["flat"].reshape(4)
    here["rows"] = array(4, 2)
    there["rows"] = here["rows"][[1, 0, 2, 3]]
    here["columns"] = array(4, 3)
    there["columns"] = here["columns"][:, [1, 0, 2]].copy()
    here["odd"], there["odd"] = np.array([np.nan, 1]), np.array([2.0, 1])
    here["gone"], there["new"] = array(9), array(8)
    write(made / A, here)
    write(made / B, there)
    convert(made, toy_tensors())
    return made


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def text(*arguments: str, code: int = 7) -> list[str]:
    result = CliRunner().invoke(main, ["diff", *arguments])
    assert result.exit_code == code
    assert ("not equal" in result.stderr) is (code == 7)
    return result.stdout.splitlines()


def row(lines: Sequence[str], kind: str, name: str) -> list[str]:
    (found,) = [line for line in lines if line.split()[:2] == [kind, name]]
    return found.split()


def test_the_text_tells_every_kind_on_folded_lines(here: Path) -> None:
    lines = text(A, B)
    assert lines[0].startswith(f"here   {A}: 21 tensors, ")
    assert lines[1].startswith(f"there  {B}: 21 tensors, ")
    assert lines[2] == (
        "1 ambiguous, 3 cast, 4 changed, 1 equal, 1 only-here, 1 only-there, 1 rearranged, "
        "3 renamed, 1 reshaped, 1 rows-permuted, 3 transposed"
    )
    folded = [" ".join(line.split()) for line in lines[4:]]
    assert "renamed layers.{0..2}.q → blocks.{1..3}.q F32 [5] ×3" in folded
    assert "transposed h.{0..2}.fc F32 [4, 6] → [6, 4] ×3 dims in the order 1, 0" in folded
    assert "cast h.{0..2}.norm F32 [7] → BF16 ×3 values rounded to nearest" in folded
    assert "reshaped flat F32 [2, 2] → [4]" in folded
    assert "rows-permuted rows F32 [4, 2] 2 rows lie elsewhere" in folded
    assert "only-here gone F32 [9]" in folded
    assert "only-there new F32 [8]" in folded
    assert "ambiguous layers.{0..2}.bias ↔ blocks.{1..3}.b" in " ".join(folded)
    assert row(lines, "rearranged", "columns")[-2:] == ["another", "order"]
    assert len(folded) == 11
    assert not any(line.startswith("equal") for line in folded)


def test_figures_of_folded_lines_are_told_from_the_least_to_the_most(here: Path) -> None:
    found = " ".join(row(text(A, B), "changed", "h.{0..2}.near"))
    assert "largest 0.5 to 2.5, relative 0.111 to 0.385, mean 0.167 to 0.833, cosine 0.9" in found
    assert found.endswith("33.3% of elements differ")
    odd = " ".join(row(text(A, B), "changed", "odd"))
    assert odd.endswith("50% of elements differ, 1 in NaN or infinity")


def test_whole_lists_every_tensor_and_equal_ones_too(here: Path) -> None:
    lines = text(A, B, "--whole")
    assert row(lines, "equal", "same") == ["equal", "same", "F32", "[2]"]
    assert {line.split()[1] for line in lines[4:] if line.startswith("changed")} == {
        "h.0.near",
        "h.1.near",
        "h.2.near",
        "odd",
    }
    assert "largest 0.5, relative 0.111, mean 0.167" in " ".join(lines)


def test_names_whose_numbers_part_ways_do_not_fold(tmp_path: Path) -> None:
    arrays = [np.arange(3.0) + i for i in range(3)]
    write(tmp_path / A, {f"a.{i}": arrays[i] for i in range(3)})
    write(tmp_path / B, {f"b.{i}": arrays[(i + 1) % 3] for i in range(3)})
    report = of_comparison(api.diff(tmp_path / A, tmp_path / B), whole=False)
    rows = [" ".join(line.split()) for line in report.text.splitlines()[4:]]
    assert rows == [
        "renamed a.0 → b.2 F64 [3]",
        "renamed a.{1..2} → b.{0..1} F64 [3] ×2",
    ]


def test_names_fold_by_the_numbers_that_vary(tmp_path: Path) -> None:
    arrays = {(i, n): np.arange(3.0) + 10 * i + n for i in range(3) for n in (1, 2)}
    norms = {1: "attention_norm", 2: "ffn_norm"}
    write(tmp_path / A, {f"h.{i}.ln_{n}": array for (i, n), array in arrays.items()})
    write(tmp_path / B, {f"layers.{i}.{norms[n]}": array for (i, n), array in arrays.items()})
    report = of_comparison(api.diff(tmp_path / A, tmp_path / B), whole=False)
    rows = [" ".join(line.split()) for line in report.text.splitlines()[4:]]
    assert rows == [
        "renamed h.{0..2}.ln_1 → layers.{0..2}.attention_norm F64 [3] ×3",
        "renamed h.{0..2}.ln_2 → layers.{0..2}.ffn_norm F64 [3] ×3",
    ]


def test_equal_sides_are_exit_code_0(here: Path) -> None:
    assert text(A, A, code=0)[2] == "21 equal"
    document = answer("out", "out")
    assert (document["exit_code"], document["result"]["equal"]) == (0, True)
    assert document["result"]["counts"] == {"equal": 15}
    assert document["findings"] == []


def test_two_empty_checkpoints_are_equal(tmp_path: Path) -> None:
    write(tmp_path / A, {})
    report = of_comparison(api.diff(tmp_path / A, tmp_path / A), whole=False)
    assert report.text.splitlines()[-1] == "no tensors on either side"
    assert report.exit_code == 0


def test_the_answer_has_an_entry_for_every_tensor(here: Path) -> None:
    document = answer(A, B)
    assert document["exit_code"] == 7
    (finding,) = document["findings"]
    assert finding["code"] == "different"
    result = document["result"]
    assert sum(result["counts"].values()) == len(result["entries"])
    for side, path in (("here", A), ("there", B)):
        named = [tensor["name"] for entry in result["entries"] for tensor in entry[side]]
        assert sorted(named) == sorted(api.inspect(path).header)
    (entry,) = [entry for entry in result["entries"] if entry["kind"] == "rows-permuted"]
    assert entry["rows"] == 2
    assert entry["here"][0]["sha256"] != entry["there"][0]["sha256"]
    (near,) = [
        item
        for item in result["entries"]
        if item["here"][:1] and item["here"][0]["name"] == "h.0.near"
    ]
    assert near["difference"]["largest"] == 0.5
    assert near["difference"]["beyond"] == 1


def test_a_tolerance_is_exit_code_0_and_still_told(tmp_path: Path) -> None:
    write(tmp_path / A, {"w": np.array([1.0, 2.0])})
    write(tmp_path / B, {"w": np.array([1.0, 2.001])})
    sides = str(tmp_path / A), str(tmp_path / B)
    assert answer(*sides)["exit_code"] == 7
    for option in (("--rtol", "1e-3"), ("--atol", "0.01")):
        document = answer(*sides, *option)
        assert document["exit_code"] == 0
        assert document["result"]["counts"] == {"within": 1}
    assert "largest 0.001" in text(*sides, "--atol", "0.01", code=0)[-1]


def test_without_values_it_says_that_none_were_read(here: Path) -> None:
    lines = text("out", "out", "--level", "header", code=0)
    assert lines[3].startswith("no values were read")
    assert answer(A, A, "--level", "header")["result"]["counts"] == {"unread": 21}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((A,), 2),
        ((A, A, "--atol", "-1"), 2),
        ((A, A, "--rtol", "nan"), 2),
        ((A, A, "--rtol", "1", "--level", "header"), 2),
        ((A, ""), 2),
        ((A, "absent"), 4),
        (("toy.yaml", A), 4),
        ((".", A), 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_compared_has_an_exit_code(
    here: Path, arguments: Sequence[str], code: int
) -> None:
    document = answer(*arguments)
    assert (document["command"], document["exit_code"]) == ("diff", code)
    assert document["findings"]


def test_values_need_numpy_and_nothing_else_does(here: Path) -> None:
    done = run_bare("diff", A, A)
    assert done.returncode == 6
    assert "a comparison of values needs numpy" in done.stderr
    assert run_bare("diff", "out", "out", "--level", "header").returncode == 0
    without_torch = BARE.replace('("torch", "numpy")', '("torch",)')
    assert run_bare("diff", A, B, code=without_torch).returncode == 7


def test_the_page_says_what_the_command_prints(tmp_path: Path) -> None:
    assert follow(Path(__file__).parent.parent / "docs" / "diff.md", tmp_path) > 1
