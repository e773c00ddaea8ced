from __future__ import annotations

import math

import pytest
from demo import held_to_bars, show
from parity import Difference


def test_outputs_have_bars_of_their_own() -> None:
    names = ("layer0.output", "output.pooler_output")
    held = held_to_bars([Difference(name, 1e-6, 8e-5) for name in names])
    allowed = {item.name: item.allowed for item in held}
    assert allowed == {"layer0.output": 8e-5, "output.pooler_output": 2e-6}


@pytest.mark.parametrize(
    ("largest", "holds"), [(0.0, True), (2e-6, True), (2.1e-6, False), (math.nan, False)]
)
def test_one_difference_above_its_bar_is_the_verdict(
    largest: float, holds: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    missed = Difference("output.sentence_embedding", largest, 1e-5)
    assert show(held_to_bars([Difference("layer0.output", 0.0, 1e-5), missed])) is holds
    assert ("TOO LARGE" in capsys.readouterr().out) is not holds
