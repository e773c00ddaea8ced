"""Short ways to take apart and to make a fused projection of queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError
from converter.steps.concat import Concat
from converter.steps.layout import refuse_negative_dims
from converter.steps.rearrange import Rearrange
from converter.steps.split import Split
from converter.steps.step import QkvLayout, Step


@dataclass(frozen=True, slots=True)
class SplitQkv:
    """Split a fused projection, along ``dim``, into that of queries, keys and values.

    ``contiguous`` is all of q, then k, then v (Phi-3). ``per_head`` is q, k and v of one head, then
    those of the next (GPT-NeoX, BLOOM). ``grouped`` is, for each of ``groups``, its heads of q,
    then of k, then of v (Falcon, InternLM2): a group for each head of keys unless stated, one for
    each rank where tensor-parallel shards, each contiguous, were merged.

    Stands for ``split``, between two ``rearrange`` where there are groups.
    Raises RuleError for heads that do not divide into groups.

    >>> SplitQkv(layout="contiguous", heads=8, kv_heads=2, head_dim=64).expansion()
    (Split(dim=0, sizes=(512, 128, 128)),)
    """

    name: ClassVar[str] = "split_qkv"

    layout: QkvLayout
    heads: int
    head_dim: int
    kv_heads: int | None = None
    groups: int | None = None
    dim: int = 0

    def __post_init__(self) -> None:
        _groups(self)

    def expansion(self) -> tuple[Step, ...]:
        """Return the steps that it stands for."""
        groups, widths = _groups(self)
        if groups == 1:
            return (Split(self.dim, widths),)
        row = sum(widths)
        taken_apart = _regrouped(self.dim, groups, apart=True, row=row)
        return (taken_apart, Split(self.dim + 1, widths), _regrouped(self.dim, groups, apart=False))


@dataclass(frozen=True, slots=True)
class FuseQkv:
    """Make the fused projection of which ``split_qkv`` with the same fields gives the parts.

    Takes queries, keys and values, in this order.

    Stands for ``concat``, between ``rearrange`` where there are groups.
    Raises RuleError for heads that do not divide into groups.

    >>> FuseQkv(layout="contiguous", heads=8, kv_heads=2, head_dim=64).expansion()
    (Concat(dim=0),)
    """

    name: ClassVar[str] = "fuse_qkv"

    layout: QkvLayout
    heads: int
    head_dim: int
    kv_heads: int | None = None
    groups: int | None = None
    dim: int = 0

    def __post_init__(self) -> None:
        _groups(self)

    def expansion(self) -> tuple[Step, ...]:
        """Return the steps that it stands for."""
        groups, widths = _groups(self)
        if groups == 1:
            return (Concat(self.dim),)
        row = sum(widths)
        joined = _regrouped(self.dim, groups, apart=False, row=row)
        return (_regrouped(self.dim, groups, apart=True), Concat(self.dim + 1), joined)


def _regrouped(dim: int, groups: int, *, apart: bool, row: int | None = None) -> Rearrange:
    """Return what makes one dim of the groups and their rows two, or the two one."""
    lead = "".join(f"dim{number} " for number in range(dim))
    one, two = f"{lead}(group row) ...", f"{lead}group row ..."
    sizes = (("group", groups), *((("row", row),) if row is not None else ()))
    return Rearrange(f"{one} -> {two}" if apart else f"{two} -> {one}", sizes)


def _groups(call: SplitQkv | FuseQkv) -> tuple[int, tuple[int, int, int]]:
    """Return how many groups there are, and the rows of q, of k and of v in each."""
    refuse_negative_dims(call.name, call.dim)
    queries, keys = call.heads, call.heads if call.kv_heads is None else call.kv_heads
    if min(queries, keys, call.head_dim) < 1:
        raise RuleError(
            f"{call.name}: no heads, or heads of no elements",
            expected="heads, kv_heads and head_dim of 1 or more",
            got=f"heads {queries}, kv_heads {keys}, head_dim {call.head_dim}",
        )
    if call.layout == "per_head" and keys != queries:
        raise RuleError(
            f"{call.name}: heads of queries without keys of their own are not laid out per head",
            expected=f"kv_heads {queries}, as heads",
            got=f"kv_heads {keys}",
            hint="the layout is grouped",
        )
    if call.groups is not None and call.layout != "grouped":
        raise RuleError(
            f"{call.name}: the layout {call.layout} has no groups to be stated",
            expected="no groups, or layout: grouped",
            got=f"groups {call.groups}",
        )
    groups = {"contiguous": 1, "per_head": queries}.get(call.layout, call.groups or keys)
    if groups < 1 or queries % groups or keys % groups:
        raise RuleError(
            f"{call.name}: the heads do not divide into equal groups",
            expected=f"multiples of {groups} groups",
            got=f"heads {queries}, kv_heads {keys}",
        )
    query, key = queries // groups * call.head_dim, keys // groups * call.head_dim
    return groups, (query, key, key)
