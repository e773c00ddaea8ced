"""Which tensors of a target could be which of the source: by equal names, and by shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from converter.fold import fold_numbers
from converter.scaffold_facts import BUFFERS
from converter.scaffold_fold import Pattern, fold_header
from converter.spec import Header, Shape, TensorSpec

_MOST_LISTED = 4


@dataclass(frozen=True, slots=True)
class Candidates:
    """For each pattern of the source what is proposed, and what of the target nothing proposes."""

    proposed: tuple[tuple[str, ...], ...]
    left: tuple[str, ...]


def candidates(patterns: Sequence[Pattern], target: Mapping[str, Shape]) -> Candidates:
    """Compare the patterns of a source with a target of these names and shapes.

    A name is proposed where it is the same, or where shape and number of tensors are.
    """
    header: Header = {name: TensorSpec("F32", shape) for name, shape in target.items()}
    wanted = fold_header(header)
    by_name = {(pattern.texts, pattern.values, pattern.shape) for pattern in wanted}
    by_form = _by_form(wanted)
    sources = _by_form(patterns)
    proposed: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for pattern in patterns:
        if (pattern.texts, pattern.values, pattern.shape) in by_name:
            proposed.append(("the target has this name, with this shape",))
            seen.add(str(pattern))
            continue
        lines = []
        for shape, how in _shapes(pattern.shape):
            found = by_form.get((shape, pattern.count), [])
            seen.update(map(str, found))
            rivals = sources.get((pattern.shape, pattern.count), [])
            lines += _lines(pattern, found, rivals, how)
        if not lines:
            for shape, count, how in _stacked(pattern):
                found = by_form.get((shape, count), [])
                seen.update(map(str, found))
                lines += _lines(pattern, found, (), how)
        proposed.append(tuple(lines))
    left = (f"{pattern} {list(pattern.shape)}" for pattern in wanted if str(pattern) not in seen)
    return Candidates(tuple(proposed), tuple(left))


def _by_form(patterns: Iterable[Pattern]) -> dict[tuple[Shape, int], list[Pattern]]:
    found: dict[tuple[Shape, int], list[Pattern]] = {}
    for pattern in patterns:
        found.setdefault((pattern.shape, pattern.count), []).append(pattern)
    return found


def _shapes(shape: Shape) -> list[tuple[Shape, str]]:
    """Return the shape, and that of the matrix transposed where it differs."""
    shapes = [(shape, "of this shape")]
    if len(shape) == 2 and shape[0] != shape[1]:
        shapes.append((shape[::-1], "transposed, of this shape"))
    return shapes


def _stacked(pattern: Pattern) -> Iterator[tuple[Shape, int, str]]:
    """Yield shape and number of the tensors that have an index of the pattern as first dim."""
    for numbers in pattern.values:
        if len(numbers) > 1:
            how = f"stacked over {{{fold_numbers(numbers)}}} with gather, of this shape"
            yield (len(numbers), *pattern.shape), pattern.count // len(numbers), how


def _lines(
    pattern: Pattern, found: Sequence[Pattern], rivals: Sequence[Pattern], how: str
) -> list[str]:
    """Say which of the target it may be: of those with its last word, where there are any."""
    alike = [other for other in found if _leaf(other) == _leaf(pattern)]
    if alike:
        found, how = alike, f"{how}, {_leaf(pattern)} too,"
        rivals = [other for other in rivals if _leaf(other) == _leaf(pattern)]
    if not found or (_leaf(pattern) in BUFFERS and not alike):
        return []
    names = ", ".join(map(str, found[:_MOST_LISTED]))
    more = f" and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
    only = "only " if len(found) == len(rivals) == 1 else ""
    return [f"{how} the target has {only}{names}{more}"]


def _leaf(pattern: Pattern) -> str:
    return pattern.texts[-1].rpartition(".")[2]
