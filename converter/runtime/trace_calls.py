"""Watch the calls of a network's modules: what each was given, and what it returned.

Hooks see a module that is called, as ``module(x)``. What a module's own code does with functions,
with the weights of another module, or by another method is between the calls; it shows in what the
next module is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from converter.errors import ExecutionError, UsageError
from converter.finding import closest
from converter.runtime.trace_file import TOO_MANY, TraceFile
from converter.runtime.trace_values import Placed, inputs_of, outputs_of
from converter.trace_record import MOST_CALLS, Call

_LONGEST_PATH = 400
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")


@dataclass(slots=True)
class _Open:
    """A call that has not ended."""

    name: str
    module: nn.Module
    caller: str | None
    inputs: tuple[str, ...]
    whole: bool = True


class Recorder:
    """Puts what the modules of a network take and give into a file, in the order of execution.

    ``only`` are dotted paths: what is at or below one of them is recorded, and the network's own
    inputs and outputs; ``*`` stands for any one part of a path. Raises UsageError for a path at
    which there is no module.
    """

    def __init__(self, network: nn.Module, file: TraceFile, only: Sequence[str]) -> None:
        self.calls: list[Call] = []
        self._file = file
        self._paths: dict[nn.Module, str] = {}
        chosen = _chosen([path for path, _ in network.named_modules()], only)
        for path, module in network.named_modules():
            self._paths[module] = _plain(path)
        self._chosen = {module for path, module in network.named_modules() if path in chosen}
        self._numbers: dict[str, int] = {}
        self._open: list[_Open] = []
        self._failed = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch all modules until this ends, however it ends."""
        with ExitStack() as stack:
            for module in self._paths:
                before = module.register_forward_pre_hook(self._enter, with_kwargs=True)
                stack.callback(before.remove)
                after = module.register_forward_hook(
                    self._leave, with_kwargs=True, always_call=True
                )
                stack.callback(after.remove)
            yield

    def _enter(self, module: nn.Module, args: Any, kwargs: Mapping[str, object]) -> None:
        if self._failed:
            return
        if module not in self._chosen:
            if self._open:
                self._open[-1].whole = False
            return
        path = self._paths[module]
        number = self._numbers[path] = self._numbers.get(path, 0) + 1
        name = path if number == 1 else f"{path}#{number}"
        caller = self._open[-1].name if self._open else None
        call = _Open(name, module, caller, ())
        self._open.append(call)
        placed = inputs_of(module, args, kwargs, named=path == "")
        call.inputs = self._add(name, "input", placed, kept=path == "")

    def _leave(
        self, module: nn.Module, args: object, kwargs: Mapping[str, object], output: object
    ) -> None:
        # Torch calls this after an error too, which a caller may survive.
        if self._failed or module not in self._chosen:
            return
        while self._open and self._open[-1].module is not module:
            self._open.pop()
        if not self._open:
            return
        call = self._open.pop()
        outputs = self._add(call.name, "output", outputs_of(output), kept=True)
        if len(self.calls) == MOST_CALLS:
            self._failed = True
            what = f"more than {MOST_CALLS:,} calls of modules"
            raise ExecutionError(what, code="calls", hint=TOO_MANY)
        kind = type(module).__name__
        self.calls.append(Call(call.name, kind, call.caller, call.inputs, outputs, call.whole))

    @torch.no_grad()
    def _add(
        self, call: str, word: str, placed: Iterator[Placed], *, kept: bool
    ) -> tuple[str, ...]:
        names = []
        try:
            for place, tensor in placed:
                name = ".".join(filter(None, (call, word, place)))
                names.append(self._file.add(name, tensor, kept=kept))
        except BaseException:
            self._failed = True  # or the hooks of all callers would fail too
            raise
        return tuple(name for name in names if name is not None)


def _chosen(paths: Sequence[str], only: Sequence[str]) -> set[str]:
    """Return those of ``paths`` that ``only`` means, and that of the network itself."""
    if not only:
        return set(paths)
    chosen = {""}
    for pattern in only:
        meant = [path for path in paths if path and _is_below(path.split("."), pattern.split("."))]
        if not meant:
            near = closest(pattern, paths)
            raise UsageError(
                "there is no module of this path",
                expected="the dotted path of a module; * stands for any one part of it",
                got=pattern,
                hint=f"did you mean {near!r}?" if near else None,
            )
        chosen.update(meant)
    return chosen


def _is_below(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(parts) >= len(pattern) and all(
        wanted in ("*", part) for wanted, part in zip(pattern, parts, strict=False)
    )


def _plain(path: str) -> str:
    """Return a path with nothing in it that another program may trip over."""
    return "".join(char if char in _PLAIN else "_" for char in path)[:_LONGEST_PATH]
