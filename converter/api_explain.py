"""Explanations of tensors, as functions."""

from __future__ import annotations

import os
from pathlib import Path

from converter.bundle_record import BUNDLE_NAME
from converter.canonical import MANIFEST_NAME
from converter.errors import SourceError, UsageError
from converter.explain import Explanation
from converter.explain_manifest import explain_manifest
from converter.source.manifest_file import read_manifest

_RULES_HINT = "to explain a checkpoint, give the rules too: --model NAME or --rules FILE"


def explain_directory(name: str, directory: str | os.PathLike[str]) -> Explanation:
    """Explain a name by the manifest of a canonical directory; nothing else of it is read.

    What a manifest says of sources and steps is its word; ``verify_source`` proves it. Raises
    UsageError for a name that is not there and for a checkpoint, SourceError and MismatchError
    for a manifest that cannot be that of a canonical directory.
    """
    return explain_manifest(name, read_manifest(_manifest_of(Path(directory))))


def _manifest_of(path: Path) -> Path:
    where = path if path.name == MANIFEST_NAME else path / MANIFEST_NAME
    if path != where and os.path.exists(path) and not os.path.isdir(path):
        raise UsageError("a checkpoint without rules", where=str(path), hint=_RULES_HINT)
    if os.path.isdir(path) and not os.path.lexists(where):
        is_bundle = os.path.lexists(path / BUNDLE_NAME)
        raise SourceError(
            f"not a canonical directory: it holds no {MANIFEST_NAME}",
            code="absent",
            where=str(path),
            hint="it is a bundle: give one of its members" if is_bundle else _RULES_HINT,
        )
    return where
