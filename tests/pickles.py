"""Checkpoints as torch.save writes them, to import, and the import in this very process."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from torch import Tensor

from converter import api, pickle_child, pickle_import, pickle_process
from converter.pickle_child import Request
from converter.pickle_import import Imported
from converter.pickle_process import Answer
from converter.source import open_source

HEADERS = Path(__file__).parent / "headers"


def save(path: Path, obj: object, *, is_archive: bool = True) -> Path:
    """Save as torch does, in the layout of today or of before torch 1.6."""
    torch.save(obj, path, _use_new_zipfile_serialization=is_archive)
    return path


def saved(obj: object, *, is_archive: bool = True) -> bytes:
    """Return what ``save`` writes."""
    buffer = io.BytesIO()
    torch.save(obj, buffer, _use_new_zipfile_serialization=is_archive)
    return buffer.getvalue()


def nested(tensors: Mapping[str, Tensor], *depths: str) -> dict[str, Any]:
    """Return dicts for the first parts of names, by which ``depths`` say; the rest stay dotted."""
    made: dict[str, Any] = {}
    for name, tensor in tensors.items():
        place = made
        for depth in depths:
            if name.startswith(f"{depth}."):
                for part in depth.split("."):
                    place = place.setdefault(part, {})
                name = name.removeprefix(f"{depth}.")
                break
        place[name] = tensor
    return made


def tensors_of(header: str) -> dict[str, Tensor]:
    """Return a small tensor for every name of a full-size header, no two with the same values."""
    names = json.loads((HEADERS / f"{header}.json").read_text())
    return {name: torch.arange(n, n + 3, dtype=torch.float32) for n, name in enumerate(names)}


def contents(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return dtype, shape and bytes of every tensor of a safetensors file, by name."""
    with open_source(path) as source:
        return {
            name: (spec.dtype, spec.shape, bytes(source.read(name)))
            for name, spec in source.header.items()
        }


def import_it(source: Path, unwrap: str | None = None, **options: Any) -> Imported:
    """Import a file to one beside it, of the same name."""
    return api.import_checkpoint(
        source, source.with_suffix(".safetensors"), unwrap=unwrap, **options
    )


def ask_here(file: IO[bytes] | int, request: Request, *, where: str) -> Answer:
    """Do what the process does, in this one and without its limits; for files that are harmless."""

    def read() -> dict[str, Any]:
        number = file if isinstance(file, int) else file.fileno()
        with open(number, "rb", closefd=False) as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened.seek(0)
            return pickle_child.reader(request)(opened)

    told = {"sandbox": {"network": False, "limits": []}, **pickle_child.answer(read)}
    return pickle_process.read_answer(json.dumps(told).encode(), where=where)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read pickles in this process: a new one takes a second, most of it to import torch."""
    monkeypatch.setattr(pickle_import, "ask", ask_here)
