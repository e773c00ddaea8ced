"""The tensors in what modules take and return, each with a name for its place."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

# A name for the place of a tensor ('' where there is but one place), and the tensor.
Placed: TypeAlias = tuple[str, Tensor]

_DEEPEST = 8
_WORD = re.compile(r"[A-Za-z0-9_-]{1,100}")
_NUMBERS: Mapping[type, torch.dtype] = {
    bool: torch.bool,
    int: torch.int64,
    float: torch.float64,
}


def outputs_of(value: object) -> Iterator[Placed]:
    """Yield the tensors of what a module returned.

    A tensor alone has the place ''; those in tuples, lists, mappings and dataclasses have numbers,
    keys and fields, with dots between levels. Whatever else there is holds no tensors.
    """
    yield from _placed("", value, 0)


def inputs_of(
    module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object], *, named: bool
) -> Iterator[Placed]:
    """Yield the tensors of a call, and its numbers as tensors of no dims, by argument.

    The one argument of a ``forward`` that takes no other has the place '' unless it is ``named``.
    """
    parameters, values = _arguments(module, args, kwargs)
    alone = not named and len(parameters) == 1
    for word, value in values.items():
        if (dtype := _NUMBERS.get(type(value))) is not None:
            if not isinstance(value, int) or -(1 << 63) <= value < 1 << 63:
                yield word, torch.tensor(value, dtype=dtype, device="cpu")
            continue
        yield from _placed("" if alone else word, value, 0)


def _arguments(
    module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> tuple[list[inspect.Parameter], dict[str, object]]:
    """Return what ``forward`` takes, and what it was given by name; numbers stand for no name."""
    try:
        signature = inspect.signature(module.forward)
        given = signature.bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # the call itself will say what is wrong with it
        return [], {str(place): value for place, value in enumerate(args)} | dict(kwargs)
    parameters = list(signature.parameters.values())
    further = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
    more = given.pop(further, {}) if further is not None else {}
    return parameters, {**given, **more}


def _placed(place: str, value: object, depth: int) -> Iterator[Placed]:
    if isinstance(value, Tensor):
        yield place, value
    elif depth < _DEEPEST:
        for word, inner in _members(value):
            yield from _placed(f"{place}.{word}" if place else word, inner, depth + 1)


def _members(value: object) -> Iterable[tuple[str, object]]:
    if isinstance(value, Mapping):
        return [
            (key if isinstance(key, str) and _WORD.fullmatch(key) else str(place), inner)
            for place, (key, inner) in enumerate(value.items())
        ]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return zip(value._fields, value, strict=True)
    if isinstance(value, (list, tuple)):
        return [(str(place), inner) for place, inner in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return [(field.name, getattr(value, field.name)) for field in fields]
    return []
