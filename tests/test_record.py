"""The records of a source's files, made beside other work."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import save_file

from converter.digest import GivenUp, never
from converter.record import records_begun
from converter.source import Source, SourceFile, open_source
from converter.source.safetensors_file import SafetensorsFile


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_file({"a": torch.arange(5)}, tmp_path / "source.safetensors")
    return tmp_path / "source.safetensors"


def test_records_that_were_begun_are_those_of_the_files(source: Path) -> None:
    with open_source(source) as opened, records_begun(opened) as records:
        (record,) = records(opened)
    assert record.name == "source.safetensors"
    assert record.size == source.stat().st_size
    assert record.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()


def test_records_that_nobody_waited_for_are_given_up(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, told = Event(), []

    def digest(self: Source, file: SourceFile, given_up: GivenUp = never) -> str:
        begun.set()
        while not given_up():
            pass
        told.append(file.name)
        return ""

    monkeypatch.setattr(SafetensorsFile, "sha256", digest)

    def refuse() -> None:
        with open_source(source) as opened, records_begun(opened):
            assert begun.wait(10)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        refuse()
    assert told == ["source.safetensors"]
