"""What strangers may hand to ``trace`` and ``compare``: refused in a line, never a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from crafted_files import REFUSED, Case
from torch import nn

from converter import compare_first
from converter.cli import main
from converter.compare_first import Calls, find_first
from converter.runtime import trace
from converter.trace_record import Call, TraceRecord


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "ours.safetensors"
    torch.manual_seed(0)
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 2))
    trace(network, {"input": torch.ones(1, 2)}, path)
    return path


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_not_plain_is_refused(case: Case, ours: Path, tmp_path: Path) -> None:
    crafted = tmp_path / "crafted.safetensors"
    crafted.write_bytes(case())
    shown = CliRunner().invoke(main, ["compare", str(ours), str(crafted)])
    assert shown.exit_code == 4
    assert shown.stdout == ""
    assert shown.stderr.startswith(f"error: {crafted}: ")
    assert len(shown.stderr) < 1000


def test_a_damaged_trace_is_read_or_refused_and_nothing_else(ours: Path, tmp_path: Path) -> None:
    whole = ours.read_bytes()
    header = whole[: 8 + int.from_bytes(whole[:8], "little")].rstrip()
    damaged = tmp_path / "damaged.safetensors"
    generator = random.Random(0)
    codes = set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            place = generator.randrange(8, len(header))
            data[place] = generator.choice(header)
        damaged.write_bytes(data)
        for files in ((damaged, ours), (ours, damaged)):
            shown = CliRunner().invoke(main, ["compare", *map(str, files)])
            assert isinstance(shown.exception, SystemExit | None)
            codes.add(shown.exit_code)
    assert {0, 4} <= codes <= {0, 4, 7}


def test_many_calls_of_which_nothing_is_known_are_gone_through_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 3000
    calls = [
        Call(f"a#{n}", "A", "", (f"a#{n}.input",), (f"a#{n}.output",), whole=True)
        for n in range(count)
    ]
    calls.append(Call("", "Network", None, (), ("output",), whole=True))
    record = TraceRecord(tuple(calls))
    steps = 0
    lacks = compare_first._Known.lacks

    def counted(known: compare_first._Known, names: tuple[str, ...]) -> tuple[str, ...]:
        nonlocal steps
        steps += 1
        return lacks(known, names)

    monkeypatch.setattr(compare_first._Known, "lacks", counted)
    names = [name for call in calls for name in (*call.inputs, *call.outputs)]
    status: dict[str, compare_first.Status] = dict.fromkeys(names, "missing")
    first = find_first(Calls(record), status | {"output": "parts"})
    assert first is not None
    assert len(first.suspects) == count
    assert steps < 5 * count
