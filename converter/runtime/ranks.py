"""Canonical directories under torch.distributed's checkpoints: each rank reads what it holds.

    import torch.distributed.checkpoint as checkpoint
    from converter.runtime.ranks import open_reader

    with open_reader("converted/dit") as reader:
        checkpoint.load(state_dict, storage_reader=reader)

torch's own reader of safetensors, ``HuggingFaceStorageReader``, loads the same directory, but
proves nothing of it. This module is not imported with the package: torch's is slow to import.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from converter.errors import MismatchError, UsageError
from converter.finding import Finding
from converter.manifest import TensorRecord
from converter.runtime.compare import stored_names
from converter.runtime.directory import OpenDirectory, opened
from converter.runtime.parts import Part, read_parts
from converter.runtime.tensors import Check, require_dtypes, resolve_request
from converter.torch_dtypes import TORCH_DTYPES


@contextmanager
def open_reader(
    path: str | os.PathLike[str], *, check: Check = "header"
) -> Iterator[CanonicalReader]:
    """Open a canonical directory for ``torch.distributed.checkpoint.load``, on every rank.

    Names, aliases included, shapes and dtypes of the state dict must be those of the manifest;
    it may lack some. ``check`` is as for ``load_slices``, of what a rank reads. Raises what
    ``open_canonical`` raises; in ``load``, what is wrong is in torch's CheckpointException: ranks
    that found different directories at the path, another dtype, bytes that differ.
    """
    resolve_request("cpu", check, mapped=False)
    with opened(path, full=check == "full") as canonical:
        require_dtypes(canonical)
        yield CanonicalReader(canonical, hashed=check == "full")


class CanonicalReader(StorageReader):
    """What ``torch.distributed.checkpoint`` asks of an open canonical directory."""

    def __init__(self, canonical: OpenDirectory, *, hashed: bool) -> None:
        self._canonical = canonical
        self._hashed = hashed
        self._stored = stored_names(canonical.manifest)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin another load. Raises UsageError for another directory than the open one."""
        if checkpoint_id is not None and os.fspath(checkpoint_id) != str(self._canonical.path):
            raise UsageError(
                "the reader is of one directory",
                expected=f"no checkpoint_id, or {str(self._canonical.path)!r}",
                got=repr(os.fspath(checkpoint_id)),
            )

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """Return names, dtypes and shapes, as the manifest has them."""
        return Metadata({name: _described(record) for name, record in self._stored.items()})

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *_: Any, **__: Any
    ) -> None:
        """Do nothing: all is open."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Say which tensors this rank has before it."""
        return replace(plan, storage_data=self._canonical.manifest.content_sha256)

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Compare what the ranks have before them; raises MismatchError unless it is the same."""
        first, *others = (str(plan.storage_data) for plan in plans)
        findings = [
            Finding(
                "content",
                f"rank {rank} found other tensors than rank 0",
                str(self._canonical.path),
                expected=f"content_sha256 {first}",
                got=other,
                hint="publish once, to a path that all ranks see, before any rank loads",
            )
            for rank, other in enumerate(others, start=1)
            if other != first
        ]
        if findings:
            raise MismatchError.of(findings)
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fill the tensors of a rank. Raises MismatchError for another dtype before it reads."""
        targets = [(item, planner.resolve_tensor(item).detach()) for item in plan.items]
        parts = [
            Part(self._stored[item.storage_index.fqn], tuple(item.storage_offsets), target)
            for item, target in targets
        ]
        _require_equal_dtypes(parts)
        read_parts(self._canonical, parts, hashed=self._hashed)
        for item, target in targets:
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Return False: torch is not to choose this reader by itself."""
        return False


def _described(record: TensorRecord) -> TensorStorageMetadata:
    size = torch.Size(record.shape)
    return TensorStorageMetadata(
        properties=TensorProperties(dtype=TORCH_DTYPES[record.dtype]),
        size=size,
        chunks=[ChunkStorageMetadata(offsets=torch.Size([0] * len(size)), sizes=size)],
    )


def _require_equal_dtypes(parts: list[Part]) -> None:
    findings = {
        part.record.name: Finding(
            "dtype",
            "the dtype of the state dict is not that of the files",
            tensor=part.record.name,
            expected=part.record.dtype,
            got=str(part.target.dtype),
            hint="make the tensor with the dtype of the files; nothing is cast",
        )
        for part in parts
        if part.target.dtype != TORCH_DTYPES[part.record.dtype]
    }
    if findings:
        raise MismatchError.of(list(findings.values()))
