"""Load a whole bundle: every member's network, after showing that they belong together."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from torch import nn

from converter import bundle_record
from converter.bundle_record import BUNDLE_NAME, BundleRecord, not_the_member
from converter.canonical import MANIFEST_NAME
from converter.digest import sha256
from converter.errors import MismatchError, SourceError
from converter.finding import Finding
from converter.runtime.directory import (
    OpenDirectory,
    open_files,
    open_folder,
    open_tree,
    read_file,
    reading,
    require_sums,
)
from converter.runtime.load import load_network
from converter.runtime.tensors import Check, resolve_request


def load_bundle(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    check: Check = "header",
    mapped: bool = False,
) -> dict[str, nn.Module]:
    """Return every member of the bundle at ``path`` by its word, ready to run on ``device``.

    Each is loaded as ``load_model`` does; ``mapped`` is as for ``load_tensors``. Raises
    SourceError when there is no bundle at ``path``, MismatchError when a member is missing or is
    not the one that the bundle was published with, and whatever ``load_model`` raises.
    """
    target = resolve_request(device, check, mapped=mapped)
    path = Path(path)
    with ExitStack() as stack:
        # All members are opened first: when another bundle is published at the path meanwhile,
        # all of them still come from one and the same.
        members = open_tree(path, stack, partial(_open_members, path=path, full=check == "full"))
        return {
            name: load_network(member, target, check, mapped=mapped)
            for name, member in members.items()
        }


def _open_members(
    folder: int, stack: ExitStack, *, path: Path, full: bool
) -> dict[str, OpenDirectory]:
    """Open the canonical directories of a bundle in ``folder``, which was found at ``path``."""
    record = _read_record(folder, path, full=full)
    # All manifests are looked at first, so that all that is wrong is told at once; what counts is
    # that the manifest which a member is loaded by is the one of the record.
    folders: dict[str, int] = {}
    findings: list[Finding] = []
    for name, member in record.members.items():
        where = path / name / MANIFEST_NAME
        if not _is_there(folder, f"{name}/{MANIFEST_NAME}"):
            findings.append(Finding("missing", "a member of the bundle is missing", str(where)))
            continue
        folders[name] = open_folder(path / name, folder)
        stack.callback(os.close, folders[name])
        got = sha256(read_file(folders[name], where))
        if got != member.manifest_sha256:
            expected = member.manifest_sha256
            findings.append(not_the_member(name, where=str(where), expected=expected, got=got))
    if findings:
        raise MismatchError.of(findings)
    return {
        name: open_files(
            folders[name],
            stack,
            path=path / name,
            full=full,
            manifest_sha256=member.manifest_sha256,
        )
        for name, member in record.members.items()
    }


def _read_record(folder: int, path: Path, *, full: bool) -> BundleRecord:
    where = path / BUNDLE_NAME
    with reading(path):
        names = os.listdir(folder)
    if BUNDLE_NAME not in names:
        raise SourceError(
            f"not a bundle: it holds no {BUNDLE_NAME}",
            where=str(path),
            hint="convert --bundle writes one; load_model loads a single canonical directory",
        )
    text = read_file(folder, where)
    record = bundle_record.load(text, where=str(where))
    if full:
        sums = {f"{name}/{MANIFEST_NAME}": m.manifest_sha256 for name, m in record.members.items()}
        require_sums(folder, path, {**sums, BUNDLE_NAME: sha256(text)}, BUNDLE_NAME)
    return record


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder)
    except OSError:
        return False
    return True
