"""A header without values, kept as JSON: name → dtype and shape."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from converter.digest import GivenUp, never
from converter.errors import SourceError
from converter.header import check_name, parse_spec
from converter.positional import WriteBuffer
from converter.source.regular_file import read_json
from converter.source.source import Source, SourceFile
from converter.spec import TensorSpec


class HeaderSnapshot(Source):
    """The header of a checkpoint that lies elsewhere, as a ``Source`` that can only be planned.

    Raises SourceError when the file is not an object of ``{"name": {"dtype": …, "shape": …}}``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.header = _read_header(path)
        self.metadata = {}
        self.files = ()

    def read(self, name: str) -> NoReturn:
        """Raise SourceError: there are no values."""
        raise SourceError(
            "a header alone has no values to read",
            code="header-only",
            where=str(self._path),
            tensor=name,
            hint="give the checkpoint itself; a header alone can be planned, not converted",
        )

    def read_into(self, name: str, buffer: WriteBuffer, begin: int = 0) -> NoReturn:
        """Raise SourceError: there are no values."""
        self.read(name)

    def sha256(self, file: SourceFile, given_up: GivenUp = never) -> NoReturn:
        """Raise ValueError: there are no files."""
        raise ValueError(f"{file.name} is not of this checkpoint")

    def check_unchanged(self) -> None:
        """Do nothing: the file was read whole when it was opened."""

    def close(self) -> None:
        """Do nothing: no file is open."""


def _read_header(path: Path) -> dict[str, TensorSpec]:
    where = str(path)
    document = read_json(path)
    if not isinstance(document, dict):
        raise _not_a_header(where, type(document).__name__)
    header = {}
    for name, entry in document.items():
        check_name(name, where=where)
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape"}:
            raise _not_a_header(where, f"another entry for {name!r}")
        header[name] = parse_spec(name, entry["dtype"], entry["shape"], where=where)
    return header


def _not_a_header(where: str, got: str) -> SourceError:
    return SourceError(
        "not a header",
        code="header",
        where=where,
        expected='an object of {"name": {"dtype": "F32", "shape": [2, 3]}, ...}',
        got=got,
    )
