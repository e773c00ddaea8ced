from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import parity_table
import pytest
import torch.nn.functional as F
from mutants import changed
from parity_table import CASES, parity_rows

from converter import api

COMPARED = {
    "bert (legacy, pretraining)": 7,
    "bigvgan": 9,
    "campplus": 7,
    "conformer": 6,
    "dit": 16,
    "gpt": 10,
    "gpt-layer": 1,
    "gpt-neox": 12,
    "gpt-neox (sequential, gpt-neox-20b)": 12,
    "gpt2 (saved)": 4,
    "gpt2 (hub)": 4,
    "length-regulator": 2,
    "perceiver": 5,
    "semantic-codec (full)": 7,
    "semantic-codec (inference)": 6,
    "soprano-decoder": 4,
    "soprano-lm": 4,
    "wav2vec-bert (full)": 21,
    "wav2vec-bert (layers-17)": 19,
    "wav2vec-bert-stats": 1,
    "whisper (hub)": 8,
    "whisper (openai)": 8,
}


def only(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    """Leave one case in the table, changed."""
    (case,) = (case for case in CASES if case.model == "gpt-layer")
    monkeypatch.setattr(parity_table, "CASES", (replace(case, **changes),))  # type: ignore[arg-type]


def test_every_model_holds_in_all_that_is_compared(tmp_path: Path) -> None:
    rows = list(parity_rows(CASES, tmp_path))
    assert {row[0]: int(row[2]) for row in rows} == COMPARED
    assert {row[-1] for row in rows} == {"holds"}
    assert {case.model for case in CASES} == {rules.model for rules in api.models()}


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert parity_table.main(["gpt-layer", "length-regulator"]) == 0
    text = capsys.readouterr().out
    assert "gpt-layer         s2mel   1" in text
    assert text.endswith("2 rows, 0 of them wrong\n")


def test_one_model_that_differs_fails_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch)
    monkeypatch.setattr(F, "linear", lambda x, weight, bias: x @ weight.T + 1.001 * bias)
    assert parity_table.main([]) == 1
    assert "FAILS" in capsys.readouterr().out


def test_what_compares_nothing_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, compare=lambda network, golden: [])
    assert parity_table.main([]) == 1


def test_mistakes_are_caught_and_one_that_is_none_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parity_table.main(["--mutants", "gpt-layer"]) == 0
    assert "relu between layers" in capsys.readouterr().out
    only(monkeypatch, mutants={"nothing": changed("layers.0", lambda x: x)})
    assert parity_table.main(["--mutants"]) == 1
    assert "MISSED" in capsys.readouterr().out
