"""Find what there is to check: a canonical directory, a bundle, or a folder that holds many."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converter.bundle_record import BUNDLE_NAME
from converter.canonical import FILE_NAME
from converter.errors import SourceError
from converter.finding import Finding


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at or below a path.

    ``directories`` are canonical directories, bundles, and what is neither and holds none, so that
    its check will say so; ``findings`` are of links, which are not followed.
    """

    directories: tuple[Path, ...]
    findings: tuple[Finding, ...] = ()


def find(path: Path) -> Found:
    """Return ``path`` itself, if it is to be checked as one; else all that is, below it, by name.

    A directory is checked as one if a file in it has a name of a canonical directory's or of a
    bundle's. Hidden directories and other files are left out. Raises SourceError when there is no
    directory at ``path``, when one cannot be listed, and when there is nothing to check in it.
    """
    if not os.path.isdir(path):
        raise SourceError(
            "not a directory" if os.path.exists(path) else "there is no such directory",
            code="absent",
            where=str(path),
            hint="give a directory that convert wrote, or a folder of them",
        )
    try:
        if _is_one(path):
            return Found((path,))
        links: list[Path] = []
        found, strangers = _below(path, links)
    except OSError as error:
        where = str(error.filename or path)
        raise SourceError(f"cannot be read: {error.strerror}", code="io", where=where) from error
    if not found:
        raise SourceError(
            "neither a canonical directory nor a folder of them: there is no manifest",
            code="absent",
            where=str(path),
            hint="give a directory that convert wrote, or a folder of them",
        )
    return Found(tuple(sorted([*found, *strangers])), tuple(_astray(links, found)))


def _is_one(path: Path) -> bool:
    """Whether any name in a directory is one that a canonical directory or a bundle holds."""
    return any(name == BUNDLE_NAME or FILE_NAME.fullmatch(name) for name in os.listdir(path))


def _below(folder: Path, links: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return what is to be checked below a folder, and directories that hold nothing of it."""
    found: list[Path] = []
    strangers: list[Path] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = folder / entry.name
        if entry.name.startswith(".") or not (entry.is_dir() or entry.is_symlink()):
            continue
        if entry.is_symlink():
            links += () if entry.is_file() else (path,)
        elif _is_one(path):
            found.append(path)
        else:
            inner, lost = _below(path, links)
            found += inner
            strangers += lost if inner else [path]
    return found, strangers


def _astray(links: list[Path], found: list[Path]) -> Iterator[Finding]:
    """Yield links to directories that are not checked under their own names."""
    places = {os.path.realpath(path) for path in found}
    for link in links:
        if os.path.realpath(link) not in places:
            yield Finding(
                "link",
                "a link, which is not followed",
                str(link),
                expected="directories, or links to those that are checked beside it",
                got=f"a link to {os.readlink(link)}",
                hint="put the directory itself there, or give its path",
            )
