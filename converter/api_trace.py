"""Traces of canonical networks, as a function: the one door from here into the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converter.api_verify import PathLike
from converter.needed import require_numpy, require_torch
from converter.publish_file import require_outside

if TYPE_CHECKING:
    from converter.trace_record import Traced


def trace(
    directory: PathLike,
    inputs: PathLike,
    out: PathLike,
    *,
    device: str = "cpu",
    input_prefix: str | None = None,
    only: Sequence[str] = (),
    full_check: bool = False,
    overwrite: bool = False,
) -> Traced:
    """Run the network of a canonical directory, and record every module's inputs and outputs.

    ``inputs`` is a safetensors file of tensors by the names of the network's arguments, behind
    ``input_prefix``: ``input.`` if there are such names. ``only`` are dotted paths of the modules
    to record, with all below them. ``full_check`` proves every byte of the weights first. For a
    module of one's own there is ``converter.runtime.trace``. Raises UsageError when the inputs do
    not fit the network, SourceError, MismatchError and ExecutionError.
    """
    require_torch("a trace")
    require_numpy("a trace")
    require_outside(Path(out), Path(directory))
    from converter.runtime.trace_inputs import read_inputs
    from converter.runtime.trace_run import trace_directory

    return trace_directory(
        directory,
        read_inputs(Path(inputs), input_prefix),
        Path(out),
        device=device,
        check="full" if full_check else "header",
        only=only,
        overwrite=overwrite,
    )
