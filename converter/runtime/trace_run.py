"""Record a run of a network, of this package or one's own, into a trace."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from converter.errors import ExecutionError
from converter.runtime.directory import opened
from converter.runtime.load import load_network
from converter.runtime.tensors import Check, resolve_request
from converter.runtime.trace_calls import Recorder
from converter.runtime.trace_file import TraceFile
from converter.runtime.trace_inputs import fit, run
from converter.trace_record import Call, Traced, TraceRecord


class Recording:
    """A recording under way: the ``calls`` that have ended; ``traced`` once it is written."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls: Sequence[Call] = calls
        self.traced: Traced | None = None


@contextmanager
def recording(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    only: Sequence[str] = (),
    overwrite: bool = False,
    model: str | None = None,
    content_sha256: str | None = None,
) -> Iterator[Recording]:
    """Record every call of ``module`` and all in it, within the block, into a trace at ``path``.

    What each call was given is taken before it and what it returned right after, so modules that
    work in place do no harm. ``module`` is in eval mode within; afterwards every part of it is in
    the mode that it was in, and nothing of this is left on it. ``only`` are dotted paths of the
    modules that are meant, with all below them; ``*`` stands for any one part of a path.

    The file is written when the block ends without an error, or not at all. Tensors lie on disk
    meanwhile, in the folder of ``path``. Raises UsageError for a path of ``only`` without a
    module, and ExecutionError when ``path`` exists without ``overwrite``, the disk does not take
    the file, or no module was called.
    """
    with TraceFile(Path(path), overwrite=overwrite) as file:
        recorder = Recorder(module, file, only)
        seen = Recording(recorder.calls)
        with _in_eval_mode(module), recorder.watching():
            yield seen
        if not recorder.calls:
            raise ExecutionError(
                "nothing was recorded: no module was called",
                code="calls",
                hint="call the module itself, as module(x): hooks do not see module.forward(x)",
            )
        record = TraceRecord(
            tuple(recorder.calls), file.same, tuple(file.left_out), model, content_sha256
        )
        seen.traced = file.write(record)


def trace(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    only: Sequence[str] = (),
    overwrite: bool = False,
    model: str | None = None,
    content_sha256: str | None = None,
) -> Traced:
    """Run ``module`` on ``inputs``, by the names of its arguments, and record it at ``path``.

    Inputs are moved to the device of the module; the rest is as for ``recording``, without
    gradients. Raises UsageError, with what ``forward`` takes, when the inputs do not fit it, and
    as ``recording``.
    """
    arguments = fit(module, inputs)
    with (
        recording(
            module,
            path,
            only=only,
            overwrite=overwrite,
            model=model,
            content_sha256=content_sha256,
        ) as seen,
        torch.no_grad(),
    ):
        run(module, arguments)
    assert seen.traced is not None
    return seen.traced


def trace_directory(
    directory: str | os.PathLike[str],
    inputs: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    check: Check = "header",
    only: Sequence[str] = (),
    overwrite: bool = False,
) -> Traced:
    """Do what ``trace`` does with the network of a canonical directory.

    The trace names the model and the digest of its content. Raises as ``load_model`` and ``trace``.
    """
    target = resolve_request(device, check, mapped=False)
    with opened(directory, full=check == "full") as canonical:
        module = load_network(canonical, target, check, mapped=False)
        manifest = canonical.manifest
    return trace(
        module,
        inputs,
        path,
        only=only,
        overwrite=overwrite,
        model=manifest.model.name,
        content_sha256=manifest.content_sha256,
    )


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
