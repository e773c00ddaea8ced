"""The names of a checkpoint as a tree, whose equal branches are folded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from converter.fold import fold_names, skeleton
from converter.spec import Header, TensorSpec

_MOST_LEVELS = 40  # of names; what is below is one level


@dataclass(frozen=True, slots=True)
class Branch:
    """One level of names; branches that differ in their number only, and hold the same, are one.

    ``spec`` is that of the tensors that end here; the sums are over all that were folded.
    """

    label: str
    spec: TensorSpec | None
    tensors: int
    parameters: int
    nbytes: int
    children: tuple[Branch, ...]


def tree_of(header: Header, *, by_size: bool = False) -> tuple[Branch, ...]:
    """Return the branches at the top; in the order of the header, or the largest first."""
    root = _Node()
    for name, spec in header.items():
        node = root
        for word in name.split(".", _MOST_LEVELS):
            node = node.children.setdefault(word, _Node())
        node.spec = spec
    _mark(root, {})
    return _branches(root, 1, by_size=by_size)


def prefixes_of(branches: tuple[Branch, ...], above: str = "") -> Iterator[tuple[str, Branch]]:
    """Yield every branch that holds others, with what their names begin with, folded."""
    for branch in branches:
        if branch.children:
            prefix = f"{above}{branch.label}."
            yield prefix, branch
            yield from prefixes_of(branch.children, prefix)


@dataclass(slots=True)
class _Node:
    """What is below one word of names; nodes of one ``mark`` hold the same."""

    spec: TensorSpec | None = None
    children: dict[str, _Node] = field(default_factory=dict)
    mark: int = -1


def _mark(node: _Node, known: dict[object, int]) -> None:
    for child in node.children.values():
        _mark(child, known)
    held = frozenset((word, child.mark) for word, child in node.children.items())
    node.mark = known.setdefault((node.spec, held), len(known))


def _branches(node: _Node, copies: int, *, by_size: bool) -> tuple[Branch, ...]:
    alike: dict[tuple[str, int], list[str]] = {}
    for word, child in node.children.items():
        alike.setdefault((skeleton(word), child.mark), []).append(word)
    made = [
        _branch(", ".join(fold_names(words)), node.children[words[0]], copies * len(words), by_size)
        for words in alike.values()
    ]
    return tuple(sorted(made, key=lambda branch: -branch.nbytes) if by_size else made)


def _branch(label: str, node: _Node, copies: int, by_size: bool) -> Branch:
    children = _branches(node, copies, by_size=by_size)
    if node.spec is None and len(children) == 1:  # nothing forks here
        (only,) = children
        return Branch(f"{label}.{only.label}", *_rest(only))
    own = (node.spec,) if node.spec else ()
    return Branch(
        label,
        node.spec,
        copies * len(own) + sum(child.tensors for child in children),
        copies * sum(spec.numel for spec in own) + sum(child.parameters for child in children),
        copies * sum(spec.nbytes for spec in own) + sum(child.nbytes for child in children),
        children,
    )


def _rest(branch: Branch) -> tuple[TensorSpec | None, int, int, int, tuple[Branch, ...]]:
    return branch.spec, branch.tensors, branch.parameters, branch.nbytes, branch.children
