"""The manifest of a canonical directory, read as the file of a stranger that it is."""

from __future__ import annotations

from pathlib import Path

from converter import manifest as manifests
from converter.layout import layouts
from converter.manifest import Manifest
from converter.source.regular_file import read_whole
from converter.strict_json import MAX_BYTES


def read_manifest(path: Path) -> Manifest:
    """Return the manifest at ``path``, which is that of a canonical directory.

    No other file of the directory is read, so nothing shows that it is the manifest of them. Raises
    SourceError when it cannot be read or cannot be such a manifest, and MismatchError when it
    contradicts itself.
    """
    text = read_whole(path, most_bytes=MAX_BYTES)
    manifest = manifests.load(text, where=str(path))
    layouts(manifest, path.parent)
    return manifest
