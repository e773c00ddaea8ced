"""What the manifest beside a checkpoint says, where the checkpoint is a canonical directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from converter import manifest as manifests
from converter.bundle_record import BUNDLE_NAME
from converter.canonical import MANIFEST_NAME
from converter.errors import SourceError
from converter.finding import Finding
from converter.manifest import Manifest
from converter.source import Source
from converter.source.regular_file import read_whole
from converter.spec import Header
from converter.strict_json import MAX_BYTES


def read_manifest(directory: Path, source: Source) -> tuple[Manifest | None, tuple[Finding, ...]]:
    """Return the manifest in the directory of an open checkpoint, and warnings about it.

    Nothing is verified: the manifest of canonical weights that cannot be read, and one that says
    otherwise than the weights, is a warning here. Beside other weights, what is no manifest is a
    stranger's file of that name.
    """
    path = directory / MANIFEST_NAME
    if not os.path.lexists(path):
        return None, ()
    try:
        text = read_whole(path, most_bytes=MAX_BYTES, within=directory)
        manifest = manifests.load(text, where=str(path))
    except SourceError as error:
        canonical = "canonical" in source.metadata
        warnings = (replace(finding, severity="warning") for finding in error.findings)
        return None, tuple(warnings) if canonical else ()
    stated = {record.name: record.spec for record in manifest.tensors}
    differs = stated != source.header
    return manifest, (_differs(path, stated, source.header),) if differs else ()


def refuse_bundle(directory: Path) -> None:
    """Raise SourceError for a converted bundle, which is several checkpoints."""
    if not os.path.lexists(directory / BUNDLE_NAME):
        return
    members = sorted(path.parent.name for path in directory.glob(f"*/{MANIFEST_NAME}"))
    hint = f"convert inspect {directory / members[0]}" if members else None
    raise SourceError(
        "a converted bundle, which is a directory for each of its members",
        code="ambiguous",
        where=str(directory),
        expected="one of its members",
        got=", ".join(members) or "none of them",
        hint=hint,
    )


def _differs(path: Path, stated: Mapping[str, object], header: Header) -> Finding:
    wrong = [name for name in {**stated, **header} if stated.get(name) != header.get(name)]
    return Finding(
        "differs",
        "the manifest says otherwise than the weights",
        str(path),
        tensor=wrong[0],
        expected=str(stated.get(wrong[0], "nothing of this name")),
        got=str(header.get(wrong[0], "nothing of this name")),
        hint=f"{len(wrong)} tensors in all; convert verify tells",
        severity="warning",
    )
