"""The runtime: load canonical directories, and nothing else.

    load_model("converted/dit", device="cuda")          an nn.Module in eval mode
    load_into(module, "converted/dit", device="cuda")   the same for a module of your own
    load_tensors("converted/dit", device="cuda")        name → tensor
    load_bundle("converted/indextts2", device="cuda")   name → nn.Module, for a whole pipeline
    load_slices("converted/dit", cut, device="cuda")    name → what one of several ranks needs
    open_canonical("converted/dit").manifest            what it holds and where it came from
    trace(model, inputs, "trace.safetensors")           what every module of a network returns
    recording(model, "trace.safetensors")               the same for a block that runs it

It stands on torch and the leaves of this package alone, knows no rules, and guesses nothing. It
needs a POSIX system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converter.runtime.bundle import load_bundle
from converter.runtime.directory import CanonicalDirectory, open_canonical
from converter.runtime.load import load_into, load_model, load_tensors
from converter.runtime.slices import load_slices, share
from converter.runtime.tensors import Check

if TYPE_CHECKING:
    from converter.runtime.trace_run import recording, trace

__all__ = [
    "CanonicalDirectory",
    "Check",
    "load_bundle",
    "load_into",
    "load_model",
    "load_slices",
    "load_tensors",
    "open_canonical",
    "recording",
    "share",
    "trace",
]


def __getattr__(name: str) -> object:
    # Who loads a model need not wait for what records one.
    if name in ("recording", "trace"):
        from converter.runtime import trace_run

        return getattr(trace_run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
