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
from converter.steps.cast import Cast
from converter.steps.chunk import Chunk
from converter.steps.concat import Concat
from converter.steps.constant import Constant
from converter.steps.dtypes import FLOATS, NUMERIC, integer_range
from converter.steps.fold_weight_norm import FoldWeightNorm
from converter.steps.permute import Permute
from converter.steps.reorder_chunks import ReorderChunks
from converter.steps.reshape import Reshape
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
    "fold_weight_norm": folds,
    "cast": casts,
    "constant": constants,
}

# These change elements, or move every one of them.
NEVER_MOVED = {"transpose", "permute", "fold_weight_norm", "cast", "constant"}


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
