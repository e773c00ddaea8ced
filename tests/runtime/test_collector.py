from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from canonical_fixture import write_canonical

from converter.runtime import load_tensors
from converter.runtime.collector import paused


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.enable()


def test_nothing_is_collected_while_many_objects_are_made() -> None:
    collections: list[str] = []
    gc.callbacks.append(lambda phase, _: collections.append(phase))
    try:
        with paused():
            kept = [[number] for number in range(100_000)]
            meanwhile = len(collections)
        more = [[number] for number in range(100_000)]
    finally:
        gc.callbacks.pop()
    assert len(kept) == len(more)
    assert meanwhile == 0
    assert collections
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with paused():
        pass
    assert not gc.isenabled()


def test_the_collector_runs_again_after_a_load_and_after_a_failed_one(tmp_path: Path) -> None:
    load_tensors(write_canonical(tmp_path / "toy", {"a": torch.zeros(4)}))
    assert gc.isenabled()
    (tmp_path / "toy" / "manifest.json").write_text("{")
    with pytest.raises(Exception, match="not strict JSON"):
        load_tensors(tmp_path / "toy")
    assert gc.isenabled()
