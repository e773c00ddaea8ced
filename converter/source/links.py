"""Where a link inside a checkpoint may lead: not out of it."""

from __future__ import annotations

import os
from pathlib import Path

from converter.errors import SourceError


def require_inside(path: Path, folder: Path, opened: os.stat_result) -> None:
    """Raise SourceError unless the file opened at ``path`` lies in ``folder``, links resolved.

    ``path`` was found in ``folder``, or in a file there, and not named by the user: a folder of a
    stranger may hold a link to anything. One place outside is no escape: in the cache of the
    Hugging Face Hub the files of ``REPO/snapshots/REVISION`` are links to those of ``REPO/blobs``.
    ``opened`` is the status of the open file, so that a link exchanged meanwhile is noticed.
    """
    target = Path(os.path.realpath(path))
    home = Path(os.path.realpath(folder))
    inside = target.is_relative_to(home) or target.parent == _blobs(home)
    if inside and os.path.samestat(os.lstat(target), opened):
        return
    raise SourceError(
        "a link that leads out of the checkpoint's folder",
        code="link",
        where=str(path),
        expected=f"a file in {folder}",
        got=str(target),
        hint="name the file or the folder that it leads to, or put a copy in its place",
    )


def _blobs(folder: Path) -> Path | None:
    """Return where the Hub's cache keeps the files of a snapshot; None for another folder."""
    for part in (folder, *folder.parents):
        if part.parent.name == "snapshots":
            return part.parent.parent / "blobs"
    return None
