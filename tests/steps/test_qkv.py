import numpy as np
import pytest

from converter.errors import RuleError
from converter.spec import TensorSpec
from converter.steps.build import build_all
from converter.steps.chain import apply_chain, infer_chain, preimage_chain
from converter.steps.qkv import FuseQkv, SplitQkv
from converter.steps.step import Array, QkvLayout

CALLS = [
    {"layout": "contiguous", "heads": 6, "kv_heads": 2, "head_dim": 4},
    {"layout": "per_head", "heads": 6, "head_dim": 4},
    {"layout": "grouped", "heads": 6, "kv_heads": 2, "head_dim": 4},
    {"layout": "grouped", "heads": 8, "kv_heads": 4, "head_dim": 2, "groups": 2},
    {"layout": "grouped", "heads": 6, "kv_heads": 1, "head_dim": 4},
]


def rows_by_head(call: dict[str, int], groups: int) -> tuple[list[tuple[str, int]], ...]:
    """Return which row of q, k or v each fused row is, and the rows of each in order."""
    heads, head_dim = call["heads"], call["head_dim"]
    keys = call.get("kv_heads", heads)
    fused = [
        (letter, head * head_dim + row)
        for group in range(groups)
        for letter, count in (("q", heads // groups), ("k", keys // groups), ("v", keys // groups))
        for head in range(group * count, (group + 1) * count)
        for row in range(head_dim)
    ]
    parts = [
        [(letter, row) for row in range(count * head_dim)]
        for letter, count in (("q", heads), ("k", keys), ("v", keys))
    ]
    return fused, *parts


def tensor(rows: list[tuple[str, int]], trailing: tuple[int, ...]) -> Array:
    """Return rows that hold their own number, and which of the three they belong to."""
    numbers = np.array([1000 * "qkv".index(letter) + row for letter, row in rows])
    tail = np.arange(np.prod(trailing, dtype=int)).reshape(trailing) * 10_000
    made: Array = numbers.reshape(-1, *(1 for _ in trailing)) + tail
    return made


@pytest.mark.parametrize("trailing", [(), (3,), (3, 2)])
@pytest.mark.parametrize("call", CALLS)
def test_every_row_goes_where_the_layout_says_and_comes_back(
    call: dict[str, int], trailing: tuple[int, ...]
) -> None:
    natural = {"contiguous": 1, "per_head": call["heads"]}.get(str(call["layout"]))
    groups = natural or call.get("groups", call.get("kv_heads", 0))
    fused, *parts = (tensor(rows, trailing) for rows in rows_by_head(call, groups))
    made = apply_chain(build_all("split_qkv", call), [fused])
    assert [part.tolist() for part in made] == [part.tolist() for part in parts]
    (back,) = apply_chain(build_all("fuse_qkv", call), parts)
    assert back.tolist() == fused.tolist()


def test_columns_are_split_where_weights_are_stored_the_other_way_round() -> None:
    call = {"layout": "per_head", "heads": 2, "head_dim": 1}
    fused = np.array([10, 20, 30, 11, 21, 31])
    whole = np.stack([fused, fused + 100])
    steps = build_all("split_qkv", {**call, "dim": 1})
    made = apply_chain(steps, [whole])
    assert [part.tolist() for part in made] == [
        [[10, 11], [110, 111]],
        [[20, 21], [120, 121]],
        [[30, 31], [130, 131]],
    ]
    (back,) = apply_chain(build_all("fuse_qkv", {**call, "dim": 1}), made)
    assert back.tolist() == whole.tolist()


@pytest.mark.parametrize("call", CALLS)
def test_the_shapes_of_the_parts_tell_that_of_the_whole(call: dict[str, int]) -> None:
    steps = build_all("split_qkv", call)
    keys = call.get("kv_heads", call["heads"])
    whole = TensorSpec("F32", ((call["heads"] + 2 * keys) * call["head_dim"], 7))
    parts = tuple(spec.shape for spec in infer_chain(steps, (whole,)))
    assert preimage_chain(steps, parts, sources=1) == (whole.shape,)


def qkv(layout: QkvLayout, **fields: int) -> tuple[SplitQkv, FuseQkv]:
    given = {"heads": 6, "head_dim": 4, **fields}
    return SplitQkv(layout=layout, **given), FuseQkv(layout=layout, **given)


@pytest.mark.parametrize(
    ("layout", "fields", "what"),
    [
        ("contiguous", {"heads": 0}, "no heads"),
        ("contiguous", {"kv_heads": 0}, "no heads"),
        ("contiguous", {"head_dim": 0}, "heads of no elements"),
        ("contiguous", {"dim": -1}, "a negative dim"),
        ("contiguous", {"groups": 2}, "the layout contiguous has no groups"),
        ("per_head", {"kv_heads": 2}, "not laid out per head"),
        ("grouped", {"kv_heads": 4}, "do not divide into equal groups"),
        ("grouped", {"kv_heads": 2, "groups": 3}, "do not divide into equal groups"),
        ("grouped", {"groups": -1}, "do not divide into equal groups"),
    ],
)
def test_heads_that_do_not_divide_are_refused(
    layout: QkvLayout, fields: dict[str, int], what: str
) -> None:
    with pytest.raises(RuleError, match=what):
        qkv(layout, **fields)
