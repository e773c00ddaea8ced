"""Load a whole bundle: every member's network, after showing that they belong together."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from converter import bundle_record
from converter.bundle_record import BUNDLE_NAME, BundleRecord, not_the_member
from converter.canonical import MANIFEST_NAME
from converter.digest import sha256
from converter.errors import MismatchError, SourceError
from converter.finding import Finding
from converter.runtime.device import resolve_device
from converter.runtime.directory import reading
from converter.runtime.load import load_network
from converter.runtime.tensors import Check, require_check


def load_bundle(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    check: Check = "header",
) -> dict[str, nn.Module]:
    """Return every member of the bundle at ``path`` by its word, ready to run on ``device``.

    Each is loaded as ``load_model`` does. Raises SourceError when there is no bundle at ``path``,
    MismatchError when a member is missing or is not the one that the bundle was published with,
    and whatever ``load_model`` raises.
    """
    require_check(check)
    target = resolve_device(device)
    path = Path(path)
    record = _read_record(path)
    # All members are looked at first, so that all that is wrong is told at once; what counts is
    # that the manifest which a member is loaded by is the one of the record.
    findings = [f for name in record.members for f in _check_member(path, name, record)]
    if findings:
        raise MismatchError.of(findings)
    return {
        name: load_network(path / name, target, check, manifest_sha256=member.manifest_sha256)
        for name, member in record.members.items()
    }


def _read_record(path: Path) -> BundleRecord:
    where = path / BUNDLE_NAME
    if not os.path.isfile(where):
        raise SourceError(
            f"not a bundle: it holds no {BUNDLE_NAME}",
            where=str(path),
            hint="convert --bundle writes one; load_model loads a single canonical directory",
        )
    with reading(where):
        text = where.read_bytes()
    return bundle_record.load(text, where=str(where))


def _check_member(path: Path, name: str, record: BundleRecord) -> list[Finding]:
    where = path / name / MANIFEST_NAME
    if not os.path.isfile(where):
        return [Finding("missing", "a member of the bundle is missing", str(where))]
    with reading(where):
        got = sha256(where.read_bytes())
    expected = record.members[name].manifest_sha256
    if got == expected:
        return []
    return [not_the_member(name, where=str(where), expected=expected, got=got)]
