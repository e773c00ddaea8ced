"""Checkpoints, opened for reading only."""

from __future__ import annotations

import os
from pathlib import Path

from converter.errors import SourceError
from converter.source.header_snapshot import HeaderSnapshot
from converter.source.ranked import RANKS_SUFFIX, Prefixed, RankedCheckpoint
from converter.source.safetensors_file import SafetensorsFile
from converter.source.sharded import INDEX_SUFFIX, ShardedCheckpoint
from converter.source.source import Source, SourceFile

__all__ = ["Source", "SourceFile", "open_again", "open_source"]

_PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_EXPECTED = f"one .safetensors file, or one *{INDEX_SUFFIX} and the files that it lists"
_LISTED = 12


def open_source(path: str | os.PathLike[str]) -> Source:
    """Open the checkpoint at ``path`` and check all that its headers say.

    ``path`` is a ``.safetensors`` file; an ``*.index.json`` with its shards beside it; a
    ``*.ranks.json`` with the files of tensor-parallel ranks beside it
    (``converter.source.ranked``); a directory that holds exactly one of the three; or a ``.json``
    of names, dtypes and shapes, which has no values. Raises SourceError for anything else, and
    never guesses which of several is meant.

    Links are followed where ``path`` names them; those that are found, in a directory or as the
    files that an index or ranks list, may not lead out of its folder (``links.require_inside``).
    """
    path = Path(path)
    return _open_directory(path) if os.path.isdir(path) else _open_file(path)


def open_again(file: SourceFile) -> Source:
    """Open one file of a checkpoint, with the names that its tensors have there."""
    source = open_source(file.path)
    return Prefixed(source, file.prefix) if file.prefix else source


def _open_file(path: Path) -> Source:
    name = path.name.lower()
    if name.endswith(".safetensors"):
        return SafetensorsFile(path)
    if name.endswith(".index.json"):
        return ShardedCheckpoint(path)
    if name.endswith(RANKS_SUFFIX):
        return RankedCheckpoint(path)
    if name.endswith(".json"):
        return HeaderSnapshot(path)
    if not os.path.exists(path):
        raise SourceError("there is no such file or directory", code="absent", where=str(path))
    raise SourceError(
        "not a checkpoint that can be read",
        code="kind",
        where=str(path),
        expected="a .safetensors file, a directory of them, an .index.json, a .ranks.json or a"
        " header .json",
        hint=_pickle_hint(path) if name.endswith(_PICKLE_SUFFIXES) else None,
    )


def _open_directory(directory: Path) -> Source:
    """Open the one checkpoint in ``directory``; like a shell's ``*``, without hidden files."""
    try:
        names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except OSError as error:
        what = f"the directory cannot be listed: {error.strerror}"
        raise SourceError(what, code="unreadable", where=str(directory)) from error
    weights = [name for name in names if name.endswith(".safetensors")]
    lists = [name for name in names if name.endswith((INDEX_SUFFIX, RANKS_SUFFIX))]
    if len(weights) == 1 and not lists:
        return SafetensorsFile(directory / weights[0], within=directory)
    if len(lists) == 1:
        path = directory / lists[0]
        ranked = path.name.endswith(RANKS_SUFFIX)
        source: ShardedCheckpoint | RankedCheckpoint = (
            RankedCheckpoint(path, within=directory)
            if ranked
            else ShardedCheckpoint(path, within=directory)
        )
        listed = {file.name for file in source.files}
        if listed.issuperset(weights):
            return source
        source.close()
        strangers = [name for name in weights if name not in listed]
        raise _ambiguous(directory, lists + strangers)
    if weights or lists:
        raise _ambiguous(directory, lists + weights, unlisted=not lists)
    pickles = [name for name in names if name.lower().endswith(_PICKLE_SUFFIXES)]
    raise SourceError(
        "there is no checkpoint in the directory",
        code="absent",
        where=str(directory),
        expected=_EXPECTED,
        got=_listing(names),
        hint=next((_pickle_hint(directory / name) for name in pickles), None),
    )


def _pickle_hint(path: Path) -> str:
    target = path.with_suffix(".safetensors")
    return f"a pickle is not read here; import it first: convert import {path} {target}"


def _ambiguous(directory: Path, found: list[str], *, unlisted: bool = False) -> SourceError:
    hint = "name the file that is meant"
    if unlisted:
        hint += f"; parts of one checkpoint need a *{INDEX_SUFFIX}, its ranks a *{RANKS_SUFFIX}"
    return SourceError(
        "there is more than one checkpoint in the directory",
        code="ambiguous",
        where=str(directory),
        expected=_EXPECTED,
        got=_listing(found),
        hint=hint,
    )


def _listing(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "") or "nothing"
