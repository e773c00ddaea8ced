"""A checkpoint in several safetensors files, listed by an index."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from converter.digest import GivenUp, never
from converter.errors import SourceError
from converter.finding import Finding
from converter.header import check_name
from converter.positional import WriteBuffer
from converter.source.regular_file import read_json
from converter.source.safetensors_file import SafetensorsFile
from converter.source.source import Source, SourceFile

INDEX_SUFFIX = ".safetensors.index.json"
MAX_SHARDS = 10_000  # several times what a process may hold open

_SHARD_SUFFIX = ".safetensors"
_MARKS = frozenset("._-+=@,() ")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]) *\.", re.IGNORECASE)


class ShardedCheckpoint(Source):
    """The shards that an index lists, opened as one ``Source``.

    The shards lie beside the index; ``within`` is the folder in which the index itself was found,
    unless the user named it. Raises SourceError with every disagreement between the index and the
    headers of the shards.
    """

    def __init__(self, index: Path, *, within: Path | None = None) -> None:
        weight_map = _read_weight_map(index, within)
        with ExitStack() as stack:
            shards = _open_shards(index, weight_map, stack)
            findings = _disagreements(index, weight_map, shards)
            if findings:
                raise SourceError.of(findings)
            self._stack = stack.pop_all()
        self._shards = shards
        self._shard_of = {name: shards[file] for name, file in weight_map.items()}
        self.header = {
            name: spec for shard in shards.values() for name, spec in shard.header.items()
        }
        self.metadata = common_metadata([shard.metadata for shard in shards.values()])
        self.files = tuple(file for shard in shards.values() for file in shard.files)

    def read(self, name: str) -> bytearray:
        """Return exactly the bytes of a tensor; raises SourceError."""
        return self._shard_of[name].read(name)

    def read_into(self, name: str, buffer: WriteBuffer, begin: int = 0) -> None:
        """Fill ``buffer`` with the bytes of a tensor from its byte ``begin`` on."""
        self._shard_of[name].read_into(name, buffer, begin)

    def sha256(self, file: SourceFile, given_up: GivenUp = never) -> str:
        """Return the digest of one of the shards."""
        return self._shards[file.name].sha256(file, given_up)

    def check_unchanged(self) -> None:
        """Raise SourceError if a shard was written to since it was opened."""
        for shard in self._shards.values():
            shard.check_unchanged()

    def close(self) -> None:
        """Close all shards."""
        self._stack.close()


def _read_weight_map(index: Path, within: Path | None) -> dict[str, str]:
    document = read_json(index, within=within)
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(file, str) for file in weight_map.values())
    ):
        raise SourceError(
            "not an index of shards",
            code="index",
            where=str(index),
            expected="an object with a weight_map of tensor names to file names",
        )
    for name in weight_map:
        check_name(name, where=str(index))
    return weight_map


def _open_shards(
    index: Path, weight_map: Mapping[str, str], stack: ExitStack
) -> dict[str, SafetensorsFile]:
    files = sorted(set(weight_map.values()))
    findings = list(unfit_names(index, files, "index"))
    if findings:
        raise SourceError.of(findings)
    shards = {}
    for file in files:
        try:
            shard = SafetensorsFile(index.parent / file, within=index.parent)
            shards[file] = stack.enter_context(shard)
        except SourceError as error:
            findings.extend(error.findings)
    if findings:
        raise SourceError.of(findings)
    return shards


def unfit_names(listing: Path, files: Sequence[str], code: str) -> Iterator[Finding]:
    """Yield what is wrong with the names of files, which a stranger listed and we open.

    ``code`` is what the listing is of, and the code of the findings.
    """
    if len(files) > MAX_SHARDS:
        expected = f"at most {MAX_SHARDS:,} files"
        yield _unfit(code, "too many shards are listed", listing, expected, f"{len(files):,}")
        return
    spellings: dict[str, str] = {}
    for file in files:
        if not _is_shard_name(file):
            expected = f"one name of letters, digits and . _ - that ends in {_SHARD_SUFFIX}"
            yield _unfit(code, "a shard's name is not fit", listing, expected, f"{file!a:.600}")
        elif (twin := spellings.setdefault(file.casefold(), file)) != file:
            what = "two shards' names differ in upper and lower case only"
            expected = "names that every file system tells apart"
            yield _unfit(code, what, listing, expected, f"{twin}, {file}")


def _unfit(code: str, what: str, listing: Path, expected: str, got: str) -> Finding:
    return Finding(code, what, where=str(listing), expected=expected, got=got)


def _is_shard_name(name: str) -> bool:
    """Whether ``name`` is one path component, on every platform, and of a safetensors file."""
    return (
        name.endswith(_SHARD_SUFFIX)
        and all(char.isalnum() or char in _MARKS for char in name)
        and unicodedata.is_normalized("NFC", name)
        and not _DEVICE.match(name)
    )


def _disagreements(
    index: Path, weight_map: Mapping[str, str], shards: Mapping[str, SafetensorsFile]
) -> list[Finding]:
    findings = []
    holders: dict[str, list[str]] = {}
    for file, shard in shards.items():
        for name in shard.header:
            holders.setdefault(name, []).append(file)
    for name in sorted(weight_map.keys() | holders.keys()):
        expected, got = weight_map.get(name), holders.get(name, [])
        if got == [expected]:
            continue
        if expected is None:
            what = "a tensor that the index does not list"
        elif not got:
            what = "a tensor of the index that no shard holds"
        elif len(got) > 1:
            what = "a tensor that several shards hold"
        else:
            what = "a tensor that lies in another shard than the index says"
        findings.append(_finding(what, index, expected or "not there", ", ".join(got), name))
    return findings


def _finding(what: str, index: Path, expected: str, got: str, tensor: str) -> Finding:
    return Finding("index", what, where=str(index), tensor=tensor, expected=expected, got=got)


def common_metadata(metadata: list[Mapping[str, str]]) -> dict[str, str]:
    """Return the entries on which all agree."""
    first, *others = metadata
    return {
        key: value
        for key, value in first.items()
        if all(other.get(key) == value for other in others)
    }
