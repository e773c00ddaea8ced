"""A tree has every tensor once, and folds only branches that hold the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from converter import api
from converter.describe_tree import Branch, prefixes_of, tree_of
from converter.spec import TensorSpec

HEADERS = sorted((Path(__file__).parent / "headers").glob("*.json"))


def tree(shapes: Mapping[str, list[int]], *, by_size: bool = False) -> tuple[Branch, ...]:
    header = {name: TensorSpec("F32", tuple(shape)) for name, shape in shapes.items()}
    return tree_of(header, by_size=by_size)


def drawn(branches: Iterable[Branch], depth: int = 0) -> Iterator[str]:
    for branch in branches:
        yield f"{'  ' * depth}{branch.label} {branch.tensors}"
        yield from drawn(branch.children, depth + 1)


def test_equal_branches_fold_and_levels_that_do_not_fork_are_one() -> None:
    shapes = {f"m.layers.{i}.{leaf}": [2] for i in range(3) for leaf in ("a.w", "b.w")}
    assert list(drawn(tree(shapes | {"head": [4]}))) == [
        "m.layers.{0..2} 6",
        "  a.w 3",
        "  b.w 3",
        "head 1",
    ]


def test_a_branch_with_another_shape_or_another_name_stands_alone() -> None:
    shapes = {f"layers.{i}.w": [2] for i in range(4)} | {"layers.2.w": [3], "layers.3.v": [2]}
    assert list(drawn(tree(shapes))) == [
        "layers 5",
        "  {0..1}.w 2",
        "  2.w 1",
        "  3 2",
        "    w 1",
        "    v 1",
    ]


def test_a_name_may_be_a_tensor_and_hold_others() -> None:
    (branch,) = tree({"a": [2], "a.b": [3]})
    assert (branch.label, branch.tensors, branch.nbytes) == ("a", 2, 20)
    assert branch.spec is not None
    assert [child.label for child in branch.children] == ["b"]


def test_the_largest_come_first_when_asked() -> None:
    shapes = {"a.x": [1], "a.y": [2], "b.x": [50], "c": [10]}
    assert list(drawn(tree(shapes, by_size=True))) == ["b.x 1", "c 1", "a 2", "  y 1", "  x 1"]


def test_prefixes_have_the_sums_of_what_begins_so() -> None:
    shapes = {f"l.{i}.{leaf}": [2] for i in range(3) for leaf in "ab"} | {"l.9.a": [1]}
    sums = {prefix: (b.tensors, b.parameters, b.nbytes) for prefix, b in prefixes_of(tree(shapes))}
    assert sums == {"l.": (7, 13, 52), "l.{0..2}.": (6, 12, 48)}


def test_a_name_of_thousands_of_levels_is_drawn() -> None:
    (branch,) = tree({"a." * 5000 + "a": [1], "a." * 5000 + "b": [1]})
    assert branch.tensors == 2
    assert sum(1 for _ in drawn([branch])) < 100


@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.stem)
def test_sums_of_a_real_header_are_those_of_its_tensors(path: Path) -> None:
    description = api.inspect(path)
    made = tree_of(description.header)
    assert sum(branch.tensors for branch in made) == len(description.header)
    assert sum(branch.parameters for branch in made) == description.parameters
    assert sum(branch.nbytes for branch in made) == description.nbytes
    leaves = list(drawn(made))
    assert len(leaves) < 2 * len(description.header)
