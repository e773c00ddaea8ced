"""The records of a source's files, made beside other work."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import save_file

from converter.digest import GivenUp, never
from converter.errors import SourceError
from converter.record import opened_beside
from converter.source import Source, SourceFile
from converter.source.safetensors_file import SafetensorsFile


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_file({"a": torch.arange(5)}, tmp_path / "source.safetensors")
    return tmp_path / "source.safetensors"


def test_what_is_opened_beside_has_the_records_of_its_files(source: Path) -> None:
    with opened_beside(source, digested=True) as opening:
        assert opening.records is not None
        (record,) = opening.records(opening.source())
        assert opening.source().read("a") == torch.arange(5).numpy().tobytes()
    assert record.name == "source.safetensors"
    assert record.size == source.stat().st_size
    assert record.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(SourceError):
        opening.source().read("a")  # it is closed


def test_records_are_made_only_where_they_are_asked_for(source: Path) -> None:
    with opened_beside(source, digested=False) as opening:
        assert opening.records is None
        assert list(opening.source().header) == ["a"]


def test_a_source_that_cannot_be_opened_is_told_to_whoever_asks_for_it(tmp_path: Path) -> None:
    with opened_beside(tmp_path / "absent", digested=True) as opening:
        pass  # nobody asked
    with pytest.raises(SourceError, match="there is no such file"):
        opening.source()


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
        with opened_beside(source, digested=True):
            assert begun.wait(10)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        refuse()
    assert told == ["source.safetensors"]
