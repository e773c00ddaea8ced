"""What a header shows of tensors that belong together or are seldom kept: proposals, never acts.

Names and shapes are all there is to see here; each proposal says what it rests on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from converter.describe_facts import GATE, SCALES
from converter.fold import Numbers, Texts
from converter.scaffold_fold import Pattern
from converter.spec import DTYPES, Shape

Known: TypeAlias = Mapping[tuple[Texts, tuple[Numbers, ...]], Pattern]

_HALVES = (("weight_g", "weight_v"), ("original0", "original1"))
_QUANTISED = ("weight", "qweight")
_FUSED = re.compile(r"qkv|query_key_value|c_attn|in_proj", re.IGNORECASE)
_OLD_WORDS = {"gamma": "weight", "beta": "bias"}
# By the last part of a name: what only a tensor of the same name is like.
BUFFERS = {
    "num_batches_tracked": "counts batches while training; drop it, if the network does not",
    "running_mean": "statistics of a batch norm, as is running_var: keep it, or fold_batch_norm "
    "takes both, and the norm's weight and bias, into the layer before it",
    "running_var": "statistics of a batch norm, as is running_mean",
    "inv_freq": "rotary frequencies; drop them, if the network makes its own from rope_base",
    "masked_bias": "what stands where a mask is zero; drop it, if the network has its own",
    "position_ids": "drop them, if they are 0, 1, 2 …; expect: arange proves it",
}


def facts(patterns: Sequence[Pattern]) -> list[list[str]]:
    """Return, for each pattern, what its names and its shape show."""
    known = {(pattern.texts, pattern.values): pattern for pattern in patterns}
    fused = {stem for pattern in patterns if (stem := _fused_stem(pattern))}
    return [[*_facts(pattern, known, fused)] for pattern in patterns]


def _facts(pattern: Pattern, known: Known, fused: set[Texts]) -> Iterator[str]:
    leaf = pattern.texts[-1].rpartition(".")[2]
    scaled = [*_scaled(pattern, leaf, known)]
    yield from scaled
    yield from _weight_norm(pattern, leaf, known)
    if leaf not in SCALES:
        yield from _fused_matrices(pattern, fused)
    yield from _gamma_beta(pattern, leaf, known)
    if leaf in BUFFERS:
        yield BUFFERS[leaf]
    elif leaf in _QUANTISED and _kinds(pattern) == {"integer"}:
        yield from () if scaled else ("integers: if they are a quantised matrix, dequantize",)
    elif not _kinds(pattern) & {"float", "complex"}:
        yield from _not_floats(pattern)


def _weight_norm(pattern: Pattern, leaf: str, known: Known) -> Iterator[str]:
    for scale, direction in _HALVES:
        if leaf == scale:
            other = known.get((_sibling(pattern, leaf, direction), pattern.values))
            if other is not None:
                yield (
                    f"with {direction} a weight norm: one rule takes both, this first; "
                    f"{_norm_step(pattern.shape, other.shape)}"
                )
        elif leaf == direction and (_sibling(pattern, leaf, scale), pattern.values) in known:
            yield f"with {scale} a weight norm: goes into its rule, as the second source"


def _kinds(pattern: Pattern) -> set[str]:
    return {DTYPES[dtype].kind for dtype in pattern.dtypes}


def _scaled(pattern: Pattern, leaf: str, known: Known) -> Iterator[str]:
    if leaf in SCALES and (_sibling(pattern, leaf, "weight"), pattern.values) in known:
        yield "the scale of weight: goes into its rule, as the second source"
    for scale in SCALES if leaf == "weight" else ():
        other = known.get((_sibling(pattern, leaf, scale), pattern.values))
        if other is not None:
            yield (
                f"with {scale} {list(other.shape)} a quantised matrix: one rule takes both, this "
                "first; dequantize, with the block that shares a scale, which no shape proves"
            )


def _gamma_beta(pattern: Pattern, leaf: str, known: Known) -> Iterator[str]:
    both = [(_sibling(pattern, leaf, word), pattern.values) in known for word in _OLD_WORDS]
    if leaf in _OLD_WORDS and all(both):
        yield f"{leaf}: of a norm, what most networks call {_OLD_WORDS[leaf]}"


def _sibling(pattern: Pattern, leaf: str, other: str) -> Texts:
    """Return the texts of a pattern with another last part."""
    return (*pattern.texts[:-1], pattern.texts[-1].removesuffix(leaf) + other)


def _norm_step(scale: Shape, direction: Shape) -> str:
    """Return the step, with the dim whose slices have a length each, as far as the shapes tell."""
    dims = [
        dim
        for dim, size in enumerate(scale)
        if len(scale) == len(direction)
        and size == direction[dim]
        and all(rest == 1 for place, rest in enumerate(scale) if place != dim)
    ]
    if len(dims) == 1:
        return f"fold_weight_norm: {{dim: {dims[0]}}}"
    return "fold_weight_norm, along a dim that these shapes do not tell"


def _fused_stem(pattern: Pattern) -> Texts | None:
    """Return the names, without the last part, of a matrix three times as long as wide."""
    if len(pattern.shape) != 2 or not _is_threefold(pattern.shape):
        return None
    return (*pattern.texts[:-1], pattern.texts[-1].rpartition(".")[0])


def _is_threefold(shape: Shape) -> bool:
    return min(shape) > 1 and max(shape) == 3 * min(shape)


def _fused_matrices(pattern: Pattern, fused: set[Texts]) -> Iterator[str]:
    stem = (*pattern.texts[:-1], pattern.texts[-1].rpartition(".")[0])
    named = _FUSED.search(pattern.texts[-1]) is not None
    gate = GATE.search(pattern.texts[-1].removeprefix(".")) is not None
    if len(pattern.shape) == 2 and _is_threefold(pattern.shape):
        which = "rows" if pattern.shape[0] > pattern.shape[1] else "columns"
        yield (
            f"three times as many {which} as the other side is long: if these are queries, keys "
            "and values, split_qkv takes them apart; whether they lie contiguous, per_head or "
            "grouped no shape tells"
        )
    elif len(pattern.shape) == 1 and stem in fused and pattern.shape[0] % 3 == 0:
        yield "belongs to a matrix that may be queries, keys and values: the same steps"
    elif named and len(pattern.shape) == 2:
        yield "by its name queries, keys and values in one: split_qkv, with the head counts"
    elif gate and pattern.shape and pattern.shape[0] % 2 == 0:
        yield (
            "by its name a gate and what it gates in one: chunk: {dim: 0, chunks: 2} takes them "
            "apart, if they do not alternate row by row; which comes first no shape tells"
        )


def _not_floats(pattern: Pattern) -> Iterator[str]:
    square = pattern.shape[-2:]
    mask = len(square) == 2 and square[0] == square[1] > 1
    proof = "; expect: lower_triangular proves a causal mask" if mask else ""
    yield f"no floating numbers: drop it, if the network makes it itself{proof}"
