"""A slice of the fuzzing that ``make fuzz`` does for longer: the same inputs every time."""

import os
import random
from pathlib import Path

import pytest
from fuzz_targets import TARGETS

SHARE = float(os.environ.get("FUZZ_SHARE", "1"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
# About a second or two each; at least so many in a hundred go deep.
INPUTS = {
    "header": (30_000, 4),
    "index": (3_000, 10),
    "snapshot": (4_000, 10),
    "manifest": (300, 1),
    "bundle-record": (5_000, 3),
    "rules": (120, 3),
    "bundle": (60, 5),
    "conversion": (60, 5),
    "yaml": (300, 20),
    "expression": (10_000, 8),
    "dims": (30_000, 20),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_text_is_taken_rightly_or_refused_in_one_way(name: str, tmp_path: Path) -> None:
    target = TARGETS[name](tmp_path)
    chance = random.Random(SEED)
    count, least = INPUTS[name]
    count = int(count * SHARE)
    taken = 0
    for number in range(count):
        text = target.draw(chance)
        try:
            taken += target.check(text)
        except Exception as error:
            error.add_note(f"input {number} of seed {SEED}: {text[:2000]!r}")
            raise
    assert taken * 100 >= count * least, "the damage is too coarse to say anything"
