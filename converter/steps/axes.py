"""Patterns of named axes, such as ``(head row) ... -> head row ...``, in the manner of einops.

A pattern names the axes of a tensor before and after. Parentheses hold axes that are one dim,
``...`` stands for any number of dims that stay as they are, and ``1`` for a dim of size 1.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from converter.errors import RuleError, StepError
from converter.spec import Shape
from converter.steps.layout import shape_text

Group: TypeAlias = tuple[str, ...]  # the axes of one dim; none for ``1``

REST: Group = ("...",)
MAX_AXES = 32  # numpy has 64 dims at most

_TOKEN = re.compile(r"\s*(\.\.\.|->|[()]|1(?![0-9A-Za-z_])|[A-Za-z_][A-Za-z0-9_]*)")
_EXPECTED = "axes, such as (head row) ... -> head row ..."
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class Pattern:
    """The dims before and after, each as the axes that it holds."""

    before: tuple[Group, ...]
    after: tuple[Group, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of all axes, in the order before."""
        return _names(self.before)


@dataclass(frozen=True, slots=True)
class Layout:
    """The elements of a tensor: the size of every axis in memory order, and their new order.

    ``shape`` is the shape that results.
    """

    sizes: Shape
    order: tuple[int, ...]
    shape: Shape


@functools.cache
def parse(text: str) -> Pattern:
    """Parse a pattern. Raises RuleError when it is none, or the sides do not name the same axes.

    >>> parse("(h w) 1 -> h w").before
    (('h', 'w'), ())
    """
    before, arrow, after = text.partition("->")
    if not arrow:
        raise _refused(text, "it has no ->")
    pattern = Pattern(_side(before, text), _side(after, text))
    left, right = _names(pattern.before), _names(pattern.after)
    for names in (left, right):
        if len(set(names)) != len(names):
            raise _refused(text, "an axis stands twice on one side")
    if set(left) != set(right):
        lone = sorted(set(left) ^ set(right))
        raise _refused(text, f"{', '.join(lone)} stands on one side only")
    if (REST in pattern.before) != (REST in pattern.after):
        raise _refused(text, "... stands on one side only")
    if len(left) > MAX_AXES:
        raise _refused(text, f"it has more than {MAX_AXES} axes")
    return pattern


def axis_sizes(
    step: str, groups: Sequence[Group], shape: Shape, stated: Mapping[str, int]
) -> tuple[dict[str, int], Shape] | None:
    """Return the size of every axis, and the dims that ``...`` stands for, in this ``shape``.

    None when a dim holds several axes whose sizes nobody states. Raises StepError when ``shape``
    has other dims than ``groups``, or they do not divide.
    """
    named = len(groups) - (REST in groups)
    rest = len(shape) - named
    if rest < 0 or (rest > 0 and REST not in groups):
        dims = f"{named} dims{' or more' if REST in groups else ''}"
        raise StepError(
            f"{step}: another number of dims", expected=f"a tensor of {dims}", got=shape_text(shape)
        )
    first = groups.index(REST) if REST in groups else len(groups)
    sizes = dict(stated)
    spread = [*shape[:first], *shape[first + rest :]]
    for group, size in zip((g for g in groups if g != REST), spread, strict=True):
        open_axes = [axis for axis in group if axis not in stated]
        if len(open_axes) > 1:
            return None
        known = math.prod(stated[axis] for axis in group if axis in stated)
        if size % known or (not open_axes and size != known):
            what = " · ".join(f"{axis} {stated.get(axis, '?')}" for axis in group) or "1"
            raise StepError(
                f"{step}: a dim is not made up of its axes",
                expected=f"{'a multiple of ' if open_axes else ''}{known}, of {what}",
                got=f"{size}, in {shape_text(shape)}",
            )
        sizes.update(dict.fromkeys(open_axes, size // known))
    return sizes, tuple(shape[first : first + rest])


def shape_of(groups: Sequence[Group], sizes: Mapping[str, int], rest: Shape) -> Shape:
    """Return the shape that ``groups`` have for these sizes of axes and dims of ``...``."""
    dims: list[int] = []
    for group in groups:
        dims += rest if group == REST else (math.prod(sizes[axis] for axis in group),)
    return tuple(dims)


def layout_of(pattern: Pattern, sizes: Mapping[str, int], rest: Shape) -> Layout:
    """Return where the elements lie before, and where they go."""
    before, after = (_flat(side, len(rest)) for side in (pattern.before, pattern.after))
    every = {**sizes, **{f"...{number}": size for number, size in enumerate(rest)}}
    return Layout(
        sizes=tuple(every[axis] for axis in before),
        order=tuple(before.index(axis) for axis in after),
        shape=shape_of(pattern.after, sizes, rest),
    )


def _flat(groups: Sequence[Group], rest: int) -> list[str]:
    axes: list[str] = []
    for group in groups:
        axes += [f"...{number}" for number in range(rest)] if group == REST else group
    return axes


def _names(groups: Sequence[Group]) -> tuple[str, ...]:
    return tuple(axis for group in groups if group != REST for axis in group)


def _side(text: str, whole: str) -> tuple[Group, ...]:
    groups: list[Group] = []
    inside: list[str] | None = None
    end = 0
    while text[end:].strip():
        found = _TOKEN.match(text, end)
        if found is None:
            raise _refused(whole, f"{text[end:].strip():.20} is no axis")
        token, end = found[1], found.end()
        if token in ("(", ")"):
            if (token == "(") != (inside is None):
                raise _refused(whole, "its parentheses do not pair, or are nested")
            if inside is not None:
                groups.append(tuple(inside))
            inside = [] if token == "(" else None
        elif inside is None:
            groups.append(() if token == "1" else (token,))
        elif token in ("...", "1", "->"):
            raise _refused(whole, f"{token} stands in parentheses")
        else:
            inside.append(token)
    if inside is not None:
        raise _refused(whole, "its parentheses do not pair, or are nested")
    if groups.count(REST) > 1 or ("->",) in groups:
        raise _refused(whole, "... stands once on a side, and -> once in all")
    return tuple(groups)


def _refused(text: str, why: str) -> RuleError:
    return RuleError(
        f"rearrange: no pattern of axes: {why}",
        expected=_EXPECTED,
        got=f"{text!r:.{_SHOWN_CHARS}}",
    )
