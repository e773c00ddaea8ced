from __future__ import annotations

import pytest

from converter.errors import PlanError
from converter.finding import Finding
from converter.manifest import Dim
from converter.rules import parse
from converter.rules.settings import Settings, resolve

RULES = """
format: 1
model: small
title: Stages of a rate and a kernel, each with blocks
origin: nowhere
dtypes: [F32]
dims: {rates: [4, 2], kernels: [8, 4], blocks: [[1, 3], [5]]}
derived: {stages: len(rates), hop: prod(rates)}
require:
  - {that: len(kernels) == stages, because: every stage has a kernel}
  - {that: "kernels[i] >= rates[i]", because: a kernel is no shorter than its rate}
  - {that: "blocks[i][n] > 0", because: no block is empty}
index: {i: stages, n: "len(blocks[i])"}
audio: {hop_length: hop, pad_samples: (1024 - hop) // 2, sample_rate: 16000}
rules:
  - from: weight
    to:
      weight: [1]
"""


def settle(**dims: Dim) -> Settings:
    return resolve(parse.parse(RULES.encode(), "small.yaml"), dims=dims)


def refused(**dims: Dim) -> list[Finding]:
    with pytest.raises(PlanError) as raised:
        settle(**dims)
    return list(raised.value.findings)


def test_all_values_of_an_index_meet_the_requirement() -> None:
    assert settle().dims["stages"] == 2
    assert settle(rates=[], kernels=[]).dims["stages"] == 0


def test_the_first_value_that_does_not_is_named() -> None:
    (finding,) = refused(kernels=[4, 1])
    assert finding.what == "the dims break a requirement: a kernel is no shorter than its rate"
    assert finding.got == "i = 1, kernels = [4, 1], rates = [4, 2]"
    assert finding.where == "small.yaml:11"


def test_indices_of_ranges_count_too() -> None:
    (finding,) = refused(blocks=[[1, 3], [0]])
    assert finding.got == "blocks = [[1, 3], [0]], i = 1, n = 0"


def test_a_list_that_is_too_short_is_refused_under_each_requirement() -> None:
    whats = [finding.what for finding in refused(kernels=[8])]
    assert whats[0] == "the dims break a requirement: every stage has a kernel"
    assert "index 1 is outside a list of 1" in whats[1]


def test_sizes_of_audio_follow_the_dims() -> None:
    audio = settle(rates=[8, 8], kernels=[8, 8]).audio
    assert audio == {"hop_length": 64, "pad_samples": 480, "sample_rate": 16000}
