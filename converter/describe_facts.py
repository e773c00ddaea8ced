"""What names, shapes and values of tensors have to do with each other: told, never acted on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from converter.spec import Header, Shape

if TYPE_CHECKING:
    from converter.describe_values import TensorValues

Group: TypeAlias = tuple[str, ...]
# What a fact is about: its kind, what is so, and the tensors together.
Told: TypeAlias = tuple[str, str, Group]

_QKV = re.compile(
    r"(^|[._])(w?qkv|to_qkv|qkv_proj|c_attn|query_key_value)([._]|$)|(^|[.])in_proj_weight$"
)
_KV = re.compile(r"(^|[._])(w?kv|to_kv|kv_proj|key_value)([._]|$)")
GATE = re.compile(r"(^|[._])(gate_up(_proj)?|gate_and_up|w13|w1w3)([._]|$)", re.IGNORECASE)
SCALES = ("weight_scale_inv", "weight_scale")
_FUSED = (("fused-qkv", _QKV, 3), ("fused-kv", _KV, 2))


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is so of several groups of tensors; each group is of tensors together."""

    kind: str
    what: str
    groups: tuple[Group, ...]


def facts_of(header: Header) -> tuple[Fact, ...]:
    """Return what is to be seen from names, dtypes and shapes."""
    finders: tuple[Callable[[Header], Iterator[Told]], ...] = (
        _weight_norms,
        _gammas,
        _batch_norms,
        _fused,
        _input_major,
        _low_ranks,
        _scales,
    )
    return _gathered(told for find in finders for told in find(header))


def facts_of_values(header: Header, values: Mapping[str, TensorValues]) -> tuple[Fact, ...]:
    """Return what is to be seen from values: equal bytes, one value throughout, NaN, infinity."""
    return _gathered((*_equal(header, values), *_constants(header, values), *_nonfinite(values)))


def _gathered(all_told: Iterable[Told]) -> tuple[Fact, ...]:
    groups: dict[tuple[str, str], list[Group]] = {}
    for kind, what, group in all_told:
        groups.setdefault((kind, what), []).append(group)
    return tuple(Fact(kind, what, tuple(held)) for (kind, what), held in groups.items())


def _weight_norms(header: Header) -> Iterator[Told]:
    endings = (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    )
    for ending, other in endings:
        for magnitude, direction in _pairs(header, ending, other):
            along = _along(header[magnitude].shape, header[direction].shape)
            if along is not None:
                yield "weight-norm", f"magnitude {along} and direction", (magnitude, direction)


def _along(magnitude: Shape, direction: Shape) -> str | None:
    """Return along which dims a magnitude varies; None where it does not go with a direction."""
    if all(size == 1 for size in magnitude):
        return "of the whole"
    if len(magnitude) != len(direction):
        return None
    if any(m not in (1, d) for m, d in zip(magnitude, direction, strict=True)):
        return None
    dims = [str(dim) for dim, size in enumerate(magnitude) if size != 1]
    return f"along dim {' and '.join(dims)}"


def _gammas(header: Header) -> Iterator[Told]:
    for gamma, beta in _pairs(header, "gamma", "beta"):
        if header[gamma].shape == header[beta].shape:
            yield (
                "gamma-beta",
                "a scale and a shift, elsewhere named weight and bias",
                (gamma, beta),
            )


def _batch_norms(header: Header) -> Iterator[Told]:
    for mean, variance in _pairs(header, "running_mean", "running_var"):
        module = mean.removesuffix("running_mean")
        shape = header[mean].shape
        if header[variance].shape != shape:
            continue
        affine = [f"{module}{leaf}" for leaf in ("weight", "bias")]
        affine = [name for name in affine if name in header and header[name].shape == shape]
        count = [name for name in (f"{module}num_batches_tracked",) if name in header]
        what = "running statistics"
        what += {0: ", not affine", 1: " and a scale", 2: ", scale and shift"}[len(affine)]
        yield "batch-norm", what, (*affine, mean, variance, *count)


def _fused(header: Header) -> Iterator[Told]:
    for name, spec in header.items():
        if len(spec.shape) < 2 or not all(spec.shape):
            continue
        rows, width = spec.shape[:2]
        tail = ".".join(name.lower().split(".")[-2:])
        named = next((item for item in _FUSED if item[1].search(tail)), None)
        if named is not None:
            kind, _, times = named
            yield kind, _times(rows, width, times) or f"named so; {rows} rows of {width}", (name,)
        elif GATE.search(tail) and rows % 2 == 0:
            yield "fused-gate", f"named so; 2 × {rows // 2} rows of {width}", (name,)
        elif len(spec.shape) == 2 and rows == 3 * width > 3 and not _is_scale(name, header):
            yield "three-to-one", f"3 × {width} rows of {width}; the name says no more", (name,)


def _is_scale(name: str, header: Header) -> bool:
    """Return whether a tensor is what another is multiplied by, and no matrix of its own."""
    return any(
        name.endswith(ending) and f"{name.removesuffix(ending)}weight" in header
        for ending in SCALES
    )


def _times(rows: int, width: int, times: int) -> str | None:
    """Say which side is so many times the other; None where neither is."""
    if rows == times * width:
        return f"{times} × {width} rows of {width}"
    if width == times * rows:
        return f"{rows} rows of {times} × {rows}"
    return None


def _input_major(header: Header) -> Iterator[Told]:
    for weight, bias in _pairs(header, "weight", "bias"):
        shape = header[weight].shape
        if len(shape) == 2 and shape[0] != shape[1] and header[bias].shape == shape[1:]:
            yield "input-major", "in × out: the bias is as long as a row", (weight, bias)


def _low_ranks(header: Header) -> Iterator[Told]:
    for ending in ("weight", "default.weight"):
        for down, up in _pairs(header, f"lora_A.{ending}", f"lora_B.{ending}"):
            first, last = header[down].shape[:1], header[up].shape[1:2]
            if first and first == last:
                yield "low-rank", f"a pair of rank {first[0]}", (down, up)


def _scales(header: Header) -> Iterator[Told]:
    for ending in SCALES:
        for weight, scale in _pairs(header, "weight", ending):
            what = f"{header[weight].dtype} beside its scale of shape"
            rank = len(header[weight].shape)
            shape = header[scale].shape
            if len(shape) in (0, rank) or all(size == 1 for size in shape):
                shown = _blocks(header[weight].shape, shape)
                yield "scaled", f"{what} {list(shape)}{shown}", (weight, scale)


def _blocks(weight: Shape, scale: Shape) -> str:
    """Say what block each number of a scale would be of, where sizes divide."""
    if len(weight) != len(scale) or not all(scale) or not all(weight):
        return ""
    sizes = [_block(w, s) for w, s in zip(weight, scale, strict=True)]
    return f", for blocks of {' × '.join(map(str, sizes))} or so"


def _block(size: int, count: int) -> int:
    """Return a block of which ``count`` cover ``size``: a power of two where one does, as most."""
    smallest = -(-size // count)
    power = 1 << (smallest - 1).bit_length()
    return power if count > 1 and -(-size // power) == count else smallest


def _pairs(header: Header, ending: str, other: str) -> Iterator[tuple[str, str]]:
    """Yield names of ``ending`` whose sibling of ``other`` is there, each with that."""
    for name in header:
        if name == ending or name.endswith(f".{ending}"):
            sibling = f"{name[: -len(ending)]}{other}"
            if sibling in header:
                yield name, sibling


def _equal(header: Header, values: Mapping[str, TensorValues]) -> Iterator[Told]:
    same: dict[tuple[object, ...], list[str]] = {}
    for name, of in values.items():
        spec = header[name]
        if spec.numel > 1 and not of.constant:
            same.setdefault((spec, of.sha256), []).append(name)
    for names in same.values():
        if len(names) > 1:
            yield "equal", "the same bytes", tuple(names)


def _constants(header: Header, values: Mapping[str, TensorValues]) -> Iterator[Told]:
    for name, of in values.items():
        if of.constant and header[name].numel > 1:
            stats = of.stats
            told = f"all {stats.min:g}" if stats and not of.nonfinite else "one value throughout"
            yield "constant", told, (name,)


def _nonfinite(values: Mapping[str, TensorValues]) -> Iterator[Told]:
    for name, of in values.items():
        if of.nonfinite:
            yield "not-finite", "NaN or infinity among the values", (name,)
