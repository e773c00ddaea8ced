"""Rewrite a canonical directory, or a member of a bundle, so that nothing in it betrays it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converter import bundle_record
from converter import manifest as manifests
from converter.canonical import MANIFEST_NAME, SUMS_NAME, encode_sums
from converter.digest import sha256
from converter.manifest import Manifest


def forge(out: Path, tensor: str, *, flip: int = 1) -> None:
    """Change bits of the first byte of ``tensor``, and every digest that follows from it."""
    manifest = manifests.load((out / MANIFEST_NAME).read_bytes())
    record = next(record for record in manifest.tensors if record.name == tensor)
    file = out / record.file
    data = bytearray(file.read_bytes())
    data[record.offset] ^= flip
    file.write_bytes(data)
    digest = sha256(data[record.offset :][: record.size])
    tensors = tuple(
        replace(item, sha256=digest) if item.name == tensor else item for item in manifest.tensors
    )
    files = tuple(
        replace(item, sha256=sha256(data)) if item.name == record.file else item
        for item in manifest.files
    )
    content = manifests.content_digest(tensors)
    write(out, replace(manifest, tensors=tensors, files=files, content_sha256=content))


def write(out: Path, manifest: Manifest) -> None:
    """Write a manifest, and the sums that it has."""
    text = manifests.dump(manifest)
    (out / MANIFEST_NAME).write_bytes(text)
    sums = {file.name: file.sha256 for file in manifest.files}
    (out / SUMS_NAME).write_bytes(encode_sums({**sums, MANIFEST_NAME: sha256(text)}))


def forge_member(bundle: Path, member: str, tensor: str) -> None:
    """Forge a member of a bundle, and what the record of the bundle has of it."""
    forge(bundle / member, tensor)
    path = bundle / bundle_record.BUNDLE_NAME
    record = bundle_record.load(path.read_bytes())
    text = (bundle / member / MANIFEST_NAME).read_bytes()
    forged = replace(
        record.members[member],
        manifest_sha256=sha256(text),
        content_sha256=manifests.load(text).content_sha256,
    )
    record = replace(record, members={**record.members, member: forged})
    path.write_bytes(bundle_record.dump(record))
    sums = {f"{name}/{MANIFEST_NAME}": m.manifest_sha256 for name, m in record.members.items()}
    sums[path.name] = sha256(path.read_bytes())
    (bundle / SUMS_NAME).write_bytes(encode_sums(sums))
