"""Tensors of modules that repeat, as a table: what they are by which layer they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from converter.fold import fold_names
from converter.manifest import TensorRecord

Layer: TypeAlias = tuple[int, ...]
_Parts: TypeAlias = tuple[str, ...]

# What is indexed and holds so many kinds of tensors is a layer of its own (stages.0.blocks.1);
# with fewer it is a part of one (ffn.net.0.weight).
_KINDS_OF_A_LAYER = 5
_MOST_DEPTH = 3
_MOST_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Stack:
    """Modules that repeat: ``tensors`` by kind, such as ``attention.q_proj.weight``, and layer.

    A layer is the numbers that choose it. Not every layer has every kind.
    """

    name: str
    layers: tuple[Layer, ...]
    kinds: tuple[str, ...]
    tensors: Mapping[tuple[str, Layer], TensorRecord]


def stacks_of(
    tensors: Iterable[TensorRecord],
) -> tuple[tuple[Stack, ...], tuple[TensorRecord, ...]]:
    """Return the stacks, in order of first appearance, and the tensors that are in none."""
    split = [(tensor, tuple(tensor.name.split("."))) for tensor in tensors]
    inside = _insides(parts for _, parts in split)
    grouped: dict[_Parts, dict[tuple[str, Layer], TensorRecord]] = {}
    for tensor, parts in split:
        path, layer, kind = _placed(parts, inside)
        grouped.setdefault(path, {})[kind, layer] = tensor
    found = [(path, cells) for path, cells in grouped.items() if path and len(_layers(cells)) > 1]
    stacked = {tensor.name for _, cells in found for tensor in cells.values()}
    return tuple(_merged(found)), tuple(t for t, _ in split if t.name not in stacked)


def layer_text(layer: Layer) -> str:
    """Return a layer as it stands in names, without the words between: ``2.1``."""
    return ".".join(map(str, layer))


def _is_index(part: str) -> bool:
    return part.isascii() and part.isdecimal() and len(part) <= _MOST_DIGITS


def _insides(names: Iterable[_Parts]) -> dict[_Parts, set[_Parts]]:
    """Return what is below each indexed path, such as all that follows ``layers.#``."""
    inside: dict[_Parts, set[_Parts]] = {}
    for split in names:
        path: list[str] = []
        depth = 0
        for at, part in enumerate(split[:-1]):
            is_index = _is_index(part)
            path.append("#" if is_index else part)
            if is_index:
                depth += 1
                inside.setdefault(tuple(path), set()).add(split[at + 1 :])
            if depth == _MOST_DEPTH:
                break
    return inside


def _placed(split: _Parts, inside: Mapping[_Parts, set[_Parts]]) -> tuple[_Parts, Layer, str]:
    """Return the path of a tensor's stack, its layer, and its kind; no path if it has no index."""
    path: list[str] = []
    chosen: tuple[_Parts, Layer, int] = ((), (), 0)
    layer: list[int] = []
    for at, part in enumerate(split[:-1]):
        if not _is_index(part):
            path.append(part)
            continue
        path.append("#")
        if layer and len(inside.get(tuple(path), ())) < _KINDS_OF_A_LAYER:
            break
        layer.append(int(part))
        chosen = (tuple(path), tuple(layer), at + 1)
        if len(layer) == _MOST_DEPTH:
            break
    return chosen[0], chosen[1], ".".join(split[chosen[2] :])


def _layers(cells: Iterable[tuple[str, Layer]]) -> tuple[Layer, ...]:
    return tuple(sorted({layer for _, layer in cells}))


def _merged(
    found: Iterable[tuple[_Parts, Mapping[tuple[str, Layer], TensorRecord]]],
) -> list[Stack]:
    """Make stacks; those of few kinds, beside each other and of the same layers, become one."""
    made: dict[tuple[_Parts, tuple[Layer, ...]], list[Stack]] = {}
    for path, cells in found:
        layers = _layers(cells)
        few = len({kind for kind, _ in cells}) < _KINDS_OF_A_LAYER
        key = (path[:-2] if few else path, layers)
        stack = Stack(".".join(path), layers, tuple(dict.fromkeys(k for k, _ in cells)), cells)
        made.setdefault(key, []).append(stack)
    return [_one(path, group) for (path, _), group in made.items()]


def _one(path: _Parts, group: list[Stack]) -> Stack:
    if len(group) == 1:
        return _titled(group[0])
    tensors: dict[tuple[str, Layer], TensorRecord] = {}
    for stack in group:
        word = stack.name.split(".")[-2]
        tensors |= {(f"{word}.#.{kind}", at): t for (kind, at), t in stack.tensors.items()}
    kinds = tuple(dict.fromkeys(kind for kind, _ in tensors))
    return _titled(Stack(".".join((*path, "*", "#")), group[0].layers, kinds, tensors))


def _titled(stack: Stack) -> Stack:
    """Write the numbers of the layers in place of the marks: ``stages.{0..5}.blocks.{0..2}``."""
    spelled = []
    for layer in stack.layers:
        numbers = iter(layer)
        parts = (str(next(numbers)) if p == "#" else p for p in stack.name.split("."))
        spelled.append(".".join(parts))
    return Stack(", ".join(fold_names(spelled)), stack.layers, stack.kinds, stack.tensors)
