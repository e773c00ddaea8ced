from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from converter.errors import RuleError
from converter.steps.build import build_all
from converter.steps.chain import apply_chain

HEADS, HEAD_DIM, HIDDEN, LENGTH = 3, 8, 5, 6


def angles(turned: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, for each position and pair of elements."""
    rate = 10_000 ** (-torch.arange(0, turned, 2, dtype=torch.float64) / turned)
    angle = torch.outer(torch.arange(LENGTH, dtype=torch.float64), rate)
    return angle.cos(), angle.sin()


def interleaved(heads: Tensor, turned: int) -> Tensor:
    """Turn neighbours, by the convention's definition."""
    cos, sin = angles(turned)
    even, odd = heads[..., 0:turned:2], heads[..., 1:turned:2]
    pairs = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)
    return torch.cat([pairs, heads[..., turned:]], -1)


def half_split(heads: Tensor, turned: int) -> Tensor:
    """Turn element i with element i + width / 2, by the convention's definition."""
    cos, sin = angles(turned)
    first, second = heads[..., : turned // 2], heads[..., turned // 2 : turned]
    halves = torch.cat([first * cos - second * sin, first * sin + second * cos], -1)
    return torch.cat([halves, heads[..., turned:]], -1)


ROTARY = {"interleaved": interleaved, "half_split": half_split}


def permuted(tensor: Tensor, **fields: Any) -> Tensor:
    steps = build_all("permute_rope", fields)
    return torch.from_numpy(np.ascontiguousarray(apply_chain(steps, [tensor.numpy()])[0]))


def scores(query: Tensor, key: Tensor, convention: str, turned: int) -> Tensor:
    """Return attention scores of heads ``[head, position, element]``; keys may be fewer."""
    key = key.repeat_interleave(len(query) // len(key), 0)
    turn = ROTARY[convention]
    return turn(query, turned) @ turn(key, turned).transpose(-1, -2)


def projected(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return (x @ weight.T + bias).reshape(LENGTH, -1, HEAD_DIM).transpose(0, 1)


@pytest.mark.parametrize("rotary_dim", [None, 2, 6])
@pytest.mark.parametrize(
    ("source", "target"), [("interleaved", "half_split"), ("half_split", "interleaved")]
)
def test_attention_by_the_other_convention_scores_the_same(
    source: str, target: str, rotary_dim: int | None
) -> None:
    torch.manual_seed(0)
    x = torch.randn(LENGTH, HIDDEN, dtype=torch.float64)
    queries, keys = (
        (torch.randn(n * HEAD_DIM, HIDDEN).double(), torch.randn(n * HEAD_DIM).double())
        for n in (HEADS, 1)
    )
    turned = HEAD_DIM if rotary_dim is None else rotary_dim
    before = scores(projected(x, *queries), projected(x, *keys), source, turned)
    fields = {"from": source, "to": target, "head_dim": HEAD_DIM}
    if rotary_dim is not None:
        fields["rotary_dim"] = rotary_dim
    moved = [permuted(tensor, heads=HEADS, **fields) for tensor in queries]
    moved_keys = [permuted(tensor, heads=1, **fields) for tensor in keys]
    after = scores(projected(x, *moved), projected(x, *moved_keys), target, turned)
    assert torch.allclose(after, before, rtol=1e-12, atol=1e-12)
    if turned > 2:
        wrong = scores(projected(x, *queries), projected(x, *keys), target, turned)
        assert not torch.allclose(wrong, before), "the conventions differ"


def test_it_is_what_transformers_does_to_the_weights_of_llama() -> None:
    """The reshaping of its ``convert_llama_weights_to_hf``: [h, d/2, 2, i] to [h, 2, d/2, i]."""
    weight = torch.randn(HEADS * HEAD_DIM, HIDDEN)
    moved = permuted(
        weight, **{"from": "interleaved", "to": "half_split"}, heads=HEADS, head_dim=HEAD_DIM
    )
    pairs = weight.reshape(HEADS, HEAD_DIM // 2, 2, HIDDEN)
    assert torch.equal(moved, pairs.transpose(1, 2).reshape(HEADS * HEAD_DIM, HIDDEN))


def test_columns_are_reordered_where_weights_are_stored_the_other_way_round() -> None:
    weight = torch.randn(HEADS * HEAD_DIM, HIDDEN)
    fields = {"from": "interleaved", "to": "half_split", "heads": HEADS, "head_dim": HEAD_DIM}
    assert torch.equal(permuted(weight.T, **fields, dim=1), permuted(weight, **fields).T)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"to": "interleaved"}, "nothing to reorder"),
        ({"heads": 0}, "no heads"),
        ({"head_dim": 7}, "turned in pairs"),
        ({"rotary_dim": 10}, "turned in pairs"),
        ({"rotary_dim": 0}, "turned in pairs"),
        ({"rotary_dim": 3}, "turned in pairs"),
        ({"dim": -1}, "a negative dim"),
        ({"to": "neox"}, "to is not interleaved or half_split"),
    ],
)
def test_what_turns_no_pairs_is_refused(fields: dict[str, object], what: str) -> None:
    given = {"from": "interleaved", "to": "half_split", "heads": 2, "head_dim": 8, **fields}
    with pytest.raises(RuleError, match=what):
        build_all("permute_rope", given)
