"""What holds for every step of the table, whatever it does.

A case is a strategy that draws a step together with tensors that it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TypeAlias

import pytest
import torch
from arrays import apply, apply_steps
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from converter.errors import StepError
from converter.spec import DTYPES, Shape, TensorSpec
from converter.steps import STEPS
from converter.steps.add import Add
from converter.steps.cast import Cast
from converter.steps.chunk import Chunk
from converter.steps.concat import Concat
from converter.steps.constant import Constant
from converter.steps.deduplicate import Deduplicate
from converter.steps.deinterleave import Deinterleave
from converter.steps.dequantize import Dequantize
from converter.steps.dtypes import FLOATS, NUMERIC, integer_range
from converter.steps.flip import Flip
from converter.steps.fold_batch_norm import FoldBatchNorm
from converter.steps.fold_weight_norm import FoldWeightNorm
from converter.steps.interleave import Interleave
from converter.steps.pad import Pad
from converter.steps.permute import Permute
from converter.steps.rearrange import Rearrange
from converter.steps.reorder_chunks import ReorderChunks
from converter.steps.replicate import Replicate
from converter.steps.reshape import Reshape
from converter.steps.scale import Scale
from converter.steps.slice_ import Slice
from converter.steps.split import Split
from converter.steps.squeeze import Squeeze
from converter.steps.stack import Stack
from converter.steps.step import Specs, Step
from converter.steps.transpose import Transpose
from converter.steps.unsqueeze import Unsqueeze
from converter.steps.unstack import Unstack
from converter.torch_dtypes import TORCH_DTYPES

Case: TypeAlias = tuple[Step, tuple[Tensor, ...]]

WHOLE_BYTES = tuple(name for name, dtype in DTYPES.items() if dtype.bits % 8 == 0)
NAMES = {TORCH_DTYPES[name]: name for name in WHOLE_BYTES}

dtypes = st.sampled_from(WHOLE_BYTES)
few = settings(max_examples=30, deadline=None, derandomize=True, database=None)
every_step = pytest.mark.parametrize("name", STEPS)
sizes = st.integers(1, 3)
shapes = st.lists(sizes, min_size=1, max_size=4).map(tuple)


def moved(dtype: str, shape: Shape) -> Tensor:
    """Return a tensor whose bytes count up: it is to be moved, not computed with."""
    if dtype == "BOOL":
        return (torch.arange(prod(shape)) % 2).bool().reshape(shape)
    raw = torch.arange(prod(shape) * DTYPES[dtype].bits // 8, dtype=torch.uint8)
    return raw.view(TORCH_DTYPES[dtype]).reshape(shape)


@st.composite
def splits(draw: st.DrawFn) -> Case:
    shape, parts = draw(shapes), tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)))
    dim = draw(st.integers(0, len(shape) - 1))
    whole = (*shape[:dim], sum(parts), *shape[dim + 1 :])
    return Split(dim, parts), (moved(draw(dtypes), whole),)


@st.composite
def chunks(draw: st.DrawFn) -> Case:
    shape, count = draw(shapes), draw(sizes)
    dim = draw(st.integers(0, len(shape) - 1))
    whole = (*shape[:dim], shape[dim] * count, *shape[dim + 1 :])
    return Chunk(dim, count), (moved(draw(dtypes), whole),)


@st.composite
def concats(draw: st.DrawFn) -> Case:
    shape, dtype = draw(shapes), draw(dtypes)
    dim = draw(st.integers(0, len(shape) - 1))
    parts = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    return Concat(dim), tuple(
        moved(dtype, (*shape[:dim], part, *shape[dim + 1 :])) for part in parts
    )


@st.composite
def stacks(draw: st.DrawFn) -> Case:
    tensor = moved(draw(dtypes), draw(shapes))
    return Stack(draw(st.integers(0, tensor.dim()))), (tensor,) * draw(sizes)


@st.composite
def unstacks(draw: st.DrawFn) -> Case:
    tensor = moved(draw(dtypes), draw(shapes))
    return Unstack(draw(st.integers(0, tensor.dim() - 1))), (tensor,)


@st.composite
def transposes(draw: st.DrawFn) -> Case:
    tensor = moved(draw(dtypes), (2, *draw(shapes)))
    first, second, *_ = draw(st.permutations(range(tensor.dim())))
    return Transpose((first, second)), (tensor,)


@st.composite
def permutes(draw: st.DrawFn) -> Case:
    tensor = moved(draw(dtypes), draw(shapes))
    return Permute(tuple(draw(st.permutations(range(tensor.dim()))))), (tensor,)


@st.composite
def reshapes(draw: st.DrawFn) -> Case:
    tensor = moved(draw(dtypes), draw(shapes))
    return Reshape(tuple(draw(st.permutations([*tensor.shape, 1])))), (tensor,)


@st.composite
def squeezes(draw: st.DrawFn) -> Case:
    shape = draw(shapes)
    dim = draw(st.integers(0, len(shape)))
    return Squeeze(dim), (moved(draw(dtypes), (*shape[:dim], 1, *shape[dim:])),)


@st.composite
def unsqueezes(draw: st.DrawFn) -> Case:
    tensor = moved(draw(dtypes), draw(shapes))
    return Unsqueeze(draw(st.integers(0, tensor.dim()))), (tensor,)


@st.composite
def slices(draw: st.DrawFn) -> Case:
    tensor = moved(draw(dtypes), draw(shapes))
    dim = draw(st.integers(0, tensor.dim() - 1))
    start = draw(st.integers(0, tensor.shape[dim] - 1))
    stop = draw(st.integers(start + 1, tensor.shape[dim]))
    return Slice(dim, start, stop, because="a law is tried"), (tensor,)


@st.composite
def reorders(draw: st.DrawFn) -> Case:
    shape, count = draw(shapes), draw(sizes)
    dim = draw(st.integers(0, len(shape) - 1))
    whole = (*shape[:dim], shape[dim] * count, *shape[dim + 1 :])
    order = tuple(draw(st.permutations(range(count))))
    return ReorderChunks(dim, order), (moved(draw(dtypes), whole),)


@st.composite
def folds(draw: st.DrawFn) -> Case:
    shape = draw(shapes)
    dim = draw(st.integers(0, len(shape) - 1))
    dtype = TORCH_DTYPES[draw(st.sampled_from(["F64", "F32", "F16", "BF16"]))]
    gain = [size if at == dim else 1 for at, size in enumerate(shape)]
    one_up = torch.arange(1, prod(shape) + 1).reshape(shape)
    return FoldWeightNorm(dim), (torch.full(gain, 3).to(dtype), one_up.to(dtype))


@st.composite
def casts(draw: st.DrawFn) -> Case:
    source, target = draw(st.sampled_from(NUMERIC)), draw(st.sampled_from(NUMERIC))
    shape = draw(shapes)
    both_hold = 2 if "BOOL" in (source, target) else 8
    integers = torch.arange(prod(shape)).reshape(shape) % both_hold
    never = target == "BOOL" or (source not in FLOATS and target in FLOATS)
    saturates = not never and draw(st.booleans())
    step = Cast(target, "saturate", "it is drawn") if saturates else Cast(target)
    return step, (integers.to(TORCH_DTYPES[source]),)


@st.composite
def constants(draw: st.DrawFn) -> Case:
    dtype = draw(st.sampled_from(NUMERIC))
    value = draw(st.integers(*integer_range(dtype)))
    if dtype in FLOATS and draw(st.booleans()):
        return Constant(value / 3, draw(shapes), dtype), ()
    return Constant(value, draw(shapes), dtype), ()


@st.composite
def rearranges(draw: st.DrawFn) -> Case:
    """Draw axes, how they are joined before and after, and which sizes are stated."""
    names = [f"axis{number}" for number in range(draw(st.integers(1, 4)))]
    lengths = {name: draw(sizes) for name in names}
    rest, ones = draw(st.lists(sizes, max_size=2)), draw(st.booleans())

    def side(axes: list[str]) -> tuple[str, list[list[str]]]:
        groups: list[list[str]] = []
        for axis in axes:
            joins: bool = draw(st.booleans())
            if groups and joins:
                groups[-1].append(axis)
            else:
                groups.append([axis])
        words = [group[0] if len(group) == 1 else f"({' '.join(group)})" for group in groups]
        if rest:
            at = draw(st.integers(0, len(words)))
            words.insert(at, "...")
            groups.insert(at, ["..."])
        return " ".join(words), groups

    before, groups = side(names)
    after, _ = side(list(draw(st.permutations(names))))
    shape: list[int] = []
    for group in groups:
        shape += rest if group == ["..."] else [prod(lengths[axis] for axis in group)]
    joined = [axis for group in groups for axis in group[1:]]
    more = draw(st.lists(st.sampled_from(names), unique=True))
    stated = tuple((axis, lengths[axis]) for axis in names if axis in {*joined, *more})
    pattern = f"{before} 1 -> 1 {after}" if ones else f"{before} -> {after}"
    step = Rearrange(pattern, stated)
    return step, (moved(draw(dtypes), (*shape, *((1,) if ones else ()))),)


@st.composite
def pads(draw: st.DrawFn) -> Case:
    tensor = moved(draw(st.sampled_from(NUMERIC)), draw(shapes))
    dim = draw(st.integers(0, tensor.dim() - 1))
    return Pad(dim, draw(st.integers(0, 2)), draw(st.integers(0, 2)), value=1), (tensor,)


@st.composite
def flips(draw: st.DrawFn) -> Case:
    tensor = moved(draw(dtypes), draw(shapes))
    return Flip(draw(st.integers(0, tensor.dim() - 1))), (tensor,)


@st.composite
def interleaved(draw: st.DrawFn, step: type[Interleave] | type[Deinterleave]) -> Case:
    shape, groups, size, blocks = draw(shapes), draw(sizes), draw(sizes), draw(st.integers(0, 3))
    dim, behind = draw(st.integers(0, len(shape) - 1)), draw(st.integers(0, 2))
    end = groups * size * blocks
    whole = (*shape[:dim], end + behind, *shape[dim + 1 :])
    stop = end if behind or draw(st.booleans()) else None
    return step(dim, groups, size, stop), (moved(draw(dtypes), whole),)


@st.composite
def replicates(draw: st.DrawFn) -> Case:
    return Replicate(draw(sizes)), (moved(draw(dtypes), draw(shapes)),)


@st.composite
def deduplicates(draw: st.DrawFn) -> Case:
    return Deduplicate(), (moved(draw(dtypes), draw(shapes)),) * draw(sizes)


@st.composite
def batch_norms(draw: st.DrawFn) -> Case:
    shape = draw(shapes)
    dim = draw(st.integers(0, len(shape) - 1))
    weight, statistics = (draw(st.sampled_from(["F64", "F32", "F16", "BF16"])) for _ in range(2))
    channel = torch.arange(1, shape[dim] + 1).to(TORCH_DTYPES[statistics])
    layer = (torch.arange(prod(shape)).reshape(shape).to(TORCH_DTYPES[weight]),)
    return FoldBatchNorm(dim, 1e-5), layer + (channel,) * draw(st.integers(2, 5))


@st.composite
def scales(draw: st.DrawFn) -> Case:
    powers = st.sampled_from([-4, -2.0, -0.5, 0.25, 0.5, 1, 2, 8.0])
    by = draw(powers | st.floats(0.125, 8) | st.floats(-8, -0.125))
    shape = draw(shapes)
    # Numbers of both signs and both zeros, the smallest of a dtype and larger ones.
    values = torch.arange(-2, prod(shape) - 2).reshape(shape) / 4 * -1
    name = draw(st.sampled_from([*FLOATS]))
    tiny = torch.full_like(values, FLOATS[name].smallest)
    tensor = torch.where(values.abs() < 0.3, tiny.to(values.dtype), values)
    return Scale(by), (tensor.to(TORCH_DTYPES[name]),)


@st.composite
def sums(draw: st.DrawFn) -> Case:
    shape, dtype = draw(shapes), TORCH_DTYPES[draw(st.sampled_from([*FLOATS]))]
    tensor = (torch.arange(prod(shape)).reshape(shape) % 7).to(dtype)
    return Add(value=draw(st.sampled_from([1, 0.5]))), (tensor,) * draw(sizes)


@st.composite
def dequantizations(draw: st.DrawFn) -> Case:
    shape = draw(shapes)
    block = tuple(draw(st.integers(1, 4)) for _ in shape)
    blocks = tuple(-(-size // part) for size, part in zip(shape, block, strict=True))
    weight = torch.arange(prod(shape)).reshape(shape) % 8
    number = torch.arange(1, prod(blocks) + 1).reshape(blocks)
    scale = (number / 2).to(TORCH_DTYPES[draw(st.sampled_from(["F32", "BF16", "F16"]))])
    kept = draw(st.sampled_from([blocks, tuple(size for size in blocks if size != 1)]))
    quantised = weight.to(TORCH_DTYPES[draw(st.sampled_from(["F8_E4M3", "F8_E5M2", "I8", "U8"]))])
    zero = (number.to(torch.uint8).reshape(kept),) * draw(st.integers(0, 1))
    step = Dequantize(block, draw(st.sampled_from(["F32", "BF16", "F16"])))
    return step, (quantised, scale.reshape(kept), *zero)


CASES: Mapping[str, Callable[[], st.SearchStrategy[Case]]] = {
    "split": splits,
    "chunk": chunks,
    "concat": concats,
    "stack": stacks,
    "unstack": unstacks,
    "transpose": transposes,
    "permute": permutes,
    "reshape": reshapes,
    "squeeze": squeezes,
    "unsqueeze": unsqueezes,
    "slice": slices,
    "reorder_chunks": reorders,
    "rearrange": rearranges,
    "pad": pads,
    "flip": flips,
    "interleave": lambda: interleaved(Interleave),
    "deinterleave": lambda: interleaved(Deinterleave),
    "replicate": replicates,
    "deduplicate": deduplicates,
    "fold_weight_norm": folds,
    "fold_batch_norm": batch_norms,
    "scale": scales,
    "add": sums,
    "cast": casts,
    "dequantize": dequantizations,
    "constant": constants,
}

# These change elements, look at them, or move every one of them.
NEVER_MOVED = {
    *("transpose", "permute", "fold_weight_norm", "fold_batch_norm", "scale", "add", "cast"),
    *("dequantize", "constant", "pad", "deduplicate"),
}
# Of these, the inverse is exact whatever the tensors of a case.
ALWAYS_EXACT = {
    *("split", "chunk", "concat", "stack", "unstack", "transpose", "permute", "reshape"),
    *("squeeze", "unsqueeze", "reorder_chunks", "flip", "interleave", "deinterleave"),
    *("rearrange", "pad", "replicate", "deduplicate"),
}


def specs(tensors: Sequence[Tensor]) -> Specs:
    return tuple(TensorSpec(NAMES[tensor.dtype], tuple(tensor.shape)) for tensor in tensors)


def bits(tensors: Sequence[Tensor]) -> list[bytes]:
    # A view of one element is contiguous whatever its stride, but only a copy shows its bytes.
    dense = [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors]
    return [bytes(tensor.reshape(-1).view(torch.uint8).tolist()) for tensor in dense]


def restrided(tensor: Tensor) -> Tensor:
    """Return an equal tensor whose dims lie in memory in the opposite order."""
    backwards = tuple(reversed(range(tensor.dim())))
    return tensor.permute(backwards).contiguous().permute(backwards)


def test_every_step_has_a_case() -> None:
    assert CASES.keys() == STEPS.keys()


@every_step
@few
@given(data=st.data())
def test_infer_equals_apply(name: str, data: st.DataObject) -> None:
    step, inputs = data.draw(CASES[name]())
    assert step.infer(specs(inputs)) == specs(apply(step, inputs))


@every_step
@few
@given(data=st.data())
def test_inputs_are_unchanged(name: str, data: st.DataObject) -> None:
    step, inputs = data.draw(CASES[name]())
    before = bits(inputs)
    apply(step, inputs)
    assert bits(inputs) == before


@every_step
@few
@given(data=st.data())
def test_an_inverse_gives_every_bit_back(name: str, data: st.DataObject) -> None:
    step, inputs = data.draw(CASES[name]())
    inverse = step.inverse(specs(inputs))
    assert inverse is not None or name not in ALWAYS_EXACT
    if inverse is not None:
        back = apply_steps((inverse,), apply(step, inputs))
        assert (specs(back), bits(back)) == (specs(inputs), bits(inputs))


@every_step
@few
@given(data=st.data())
def test_a_preimage_of_the_outputs_is_the_inputs(name: str, data: st.DataObject) -> None:
    step, inputs = data.draw(CASES[name]())
    outputs = tuple(spec.shape for spec in step.infer(specs(inputs)))
    assert step.preimage(outputs) in (None, tuple(spec.shape for spec in specs(inputs)))


@every_step
@few
@given(data=st.data())
def test_the_inputs_alone_decide_not_how_they_lie_in_memory(name: str, data: st.DataObject) -> None:
    step, inputs = data.draw(CASES[name]())
    again = apply(step, [restrided(tensor) for tensor in inputs])
    assert bits(apply(step, inputs)) == bits(again)


@every_step
@few
@given(data=st.data())
def test_fan_out_is_the_number_of_outputs(name: str, data: st.DataObject) -> None:
    step, inputs = data.draw(CASES[name]())
    assert step.fan_out in (None, len(step.infer(specs(inputs))))


@every_step
@few
@given(data=st.data())
def test_runs_of_the_inputs_are_the_outputs(name: str, data: st.DataObject) -> None:
    step, inputs = data.draw(CASES[name]())
    runs = step.runs(specs(inputs))
    assert runs is not None or name in NEVER_MOVED
    if runs is not None:
        flat = [tensor.reshape(-1) for tensor in inputs]
        for output, parts in zip(apply(step, inputs), runs, strict=True):
            moved = [flat[run.number][run.begin : run.end] for run in parts]
            made = b"".join(bits(moved))
            assert made == bits([output])[0]


@every_step
@few
@given(data=st.data())
def test_rows_may_be_given_a_few_at_a_time(name: str, data: st.DataObject) -> None:
    step, inputs = data.draw(CASES[name]())
    outputs = apply(step, inputs)
    counts = {tensor.shape[:1] for tensor in (*inputs, *outputs)}
    if not step.keeps_rows or len(counts) != 1 or () in counts:
        return
    (count,) = {tensor.shape[0] for tensor in inputs}
    parts = [apply(step, [tensor[row : row + 1] for tensor in inputs]) for row in range(count)]
    for number, output in enumerate(outputs):
        assert b"".join(bits([part[number]])[0] for part in parts) == bits([output])[0]


@pytest.mark.parametrize("name", sorted(STEPS.keys() - {"constant"}))
@few
@given(data=st.data())
def test_elements_smaller_than_a_byte_are_refused(name: str, data: st.DataObject) -> None:
    step, inputs = data.draw(CASES[name]())
    packed = tuple(TensorSpec("F4", spec.shape) for spec in specs(inputs))
    with pytest.raises(StepError):
        step.infer(packed)
