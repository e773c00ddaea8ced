"""A checkpoint that several tensor-parallel ranks wrote, each its own file of the same names.

Which file is which rank is said, by a ``*.ranks.json`` beside them, and never guessed from a name:

    {"ranks": ["mp_rank_00.safetensors", "mp_rank_01.safetensors"]}

The tensor ``w`` of the first is then called ``rank.0.w``, that of the second ``rank.1.w``; a rule
gathers ``rank.{r}.w`` over the ranks and merges what it gets.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from converter.digest import GivenUp, never
from converter.errors import SourceError
from converter.positional import WriteBuffer
from converter.source.regular_file import read_json
from converter.source.safetensors_file import SafetensorsFile
from converter.source.sharded import common_metadata, unfit_names
from converter.source.source import Source, SourceFile

RANKS_SUFFIX = ".ranks.json"


class Prefixed(Source):
    """A source whose names have ``prefix`` before them. Closes the source that it is given."""

    def __init__(self, source: Source, prefix: str) -> None:
        self._source = source
        self._prefix = prefix
        self.header = {prefix + name: spec for name, spec in source.header.items()}
        self.metadata = source.metadata
        self.files = tuple(replace(file, prefix=prefix) for file in source.files)

    def read(self, name: str) -> bytearray:
        """Return exactly the bytes of a tensor; raises SourceError."""
        return self._source.read(name.removeprefix(self._prefix))

    def read_into(self, name: str, buffer: WriteBuffer, begin: int = 0) -> None:
        """Fill ``buffer`` with the bytes of a tensor from its byte ``begin`` on."""
        self._source.read_into(name.removeprefix(self._prefix), buffer, begin)

    def sha256(self, file: SourceFile, given_up: GivenUp = never) -> str:
        """Return the digest of one of the files."""
        return self._source.sha256(replace(file, prefix=""), given_up)

    def check_unchanged(self) -> None:
        """Raise SourceError if a file was written to since it was opened."""
        self._source.check_unchanged()

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class RankedCheckpoint(Source):
    """The files of all ranks that a ``*.ranks.json`` lists, opened as one ``Source``.

    They lie beside it; the list itself may not be a link that leads out of ``within``. Raises
    SourceError when it is no list of ranks, and with every fault of the files.
    """

    def __init__(self, listing: Path, *, within: Path | None = None) -> None:
        files = _read_ranks(listing, within)
        with ExitStack() as stack:
            self._ranks = _open_ranks(listing, files, stack)
            self._stack = stack.pop_all()
        self._rank_of = {name: rank for rank in self._ranks for name in rank.header}
        self.header = {name: spec for rank in self._ranks for name, spec in rank.header.items()}
        self.metadata = common_metadata([rank.metadata for rank in self._ranks])
        self.files = tuple(file for rank in self._ranks for file in rank.files)

    def read(self, name: str) -> bytearray:
        """Return exactly the bytes of a tensor; raises SourceError."""
        return self._rank_of[name].read(name)

    def read_into(self, name: str, buffer: WriteBuffer, begin: int = 0) -> None:
        """Fill ``buffer`` with the bytes of a tensor from its byte ``begin`` on."""
        self._rank_of[name].read_into(name, buffer, begin)

    def sha256(self, file: SourceFile, given_up: GivenUp = never) -> str:
        """Return the digest of the file of one of the ranks."""
        return self._ranks[self.files.index(file)].sha256(file, given_up)

    def check_unchanged(self) -> None:
        """Raise SourceError if a file was written to since it was opened."""
        for rank in self._ranks:
            rank.check_unchanged()

    def close(self) -> None:
        """Close all files."""
        self._stack.close()


def _read_ranks(listing: Path, within: Path | None) -> list[str]:
    document = read_json(listing, within=within)
    ranks = document["ranks"] if isinstance(document, dict) and [*document] == ["ranks"] else None
    if not isinstance(ranks, list) or not ranks or not all(isinstance(n, str) for n in ranks):
        raise SourceError(
            "not a list of ranks",
            code="ranks",
            where=str(listing),
            expected='{"ranks": ["rank 0\'s file", "rank 1\'s file", …]}, and nothing else',
        )
    counts = Counter(ranks)
    if twice := sorted(file for file in counts if counts[file] > 1):
        raise SourceError(
            "one file is listed as several ranks",
            code="ranks",
            where=str(listing),
            expected="a file of its own for each rank",
            got=f"{', '.join(map(ascii, twice)):.600}",
        )
    return ranks


def _open_ranks(listing: Path, files: list[str], stack: ExitStack) -> list[Prefixed]:
    findings = list(unfit_names(listing, files, "ranks"))
    if findings:
        raise SourceError.of(findings)
    ranks = []
    for number, file in enumerate(files):
        try:
            opened = SafetensorsFile(listing.parent / file, within=listing.parent)
            ranks.append(stack.enter_context(Prefixed(opened, f"rank.{number}.")))
        except SourceError as error:
            findings.extend(error.findings)
    if findings:
        raise SourceError.of(findings)
    return ranks
