import numpy as np
import pytest
import torch
from arrays import apply_steps, array_of, tensor_of

from converter.errors import StepError
from converter.spec import TensorSpec
from converter.steps.cast import Cast
from converter.steps.chain import apply_chain, infer_chain, preimage_chain
from converter.steps.chunk import Chunk
from converter.steps.concat import Concat
from converter.steps.constant import Constant
from converter.steps.reshape import Reshape
from converter.steps.split import Split
from converter.steps.stack import Stack
from converter.steps.step import Step
from converter.steps.transpose import Transpose
from converter.steps.unstack import Unstack

PAIR = (TensorSpec("F32", (6, 8)), TensorSpec("F32", (6, 4)))


def test_no_steps_are_the_identity() -> None:
    array = np.arange(6)
    assert infer_chain((), PAIR) == PAIR
    assert apply_chain((), [array])[0] is array
    assert preimage_chain((), ((6, 8),)) == ((6, 8),)


def test_a_step_that_takes_each_maps_over_the_list() -> None:
    assert [spec.shape for spec in infer_chain((Transpose(),), PAIR)] == [(8, 6), (4, 6)]


def test_results_of_each_are_joined_in_order() -> None:
    out = apply_steps((Chunk(dim=0, chunks=2),), [torch.arange(4), torch.arange(10, 14)])
    assert [tensor.tolist() for tensor in out] == [[0, 1], [2, 3], [10, 11], [12, 13]]


def test_a_step_that_takes_all_is_given_the_whole_list() -> None:
    steps: tuple[Step, ...] = (Transpose(), Concat(dim=0))
    assert [spec.shape for spec in infer_chain(steps, PAIR)] == [(12, 6)]


def test_a_constant_begins_a_chain() -> None:
    steps = (Constant(value=2, shape=(2, 3), dtype="I64"), Transpose())
    assert apply_steps(steps, [])[0].tolist() == [[2, 2], [2, 2], [2, 2]]


def test_shapes_are_worked_back_through_all_steps() -> None:
    steps = (Transpose(), Split(dim=0, sizes=(2, 1)))
    assert preimage_chain(steps, ((2, 8), (1, 8)), sources=1) == ((8, 3),)


def test_outputs_are_grouped_by_the_input_they_come_from() -> None:
    outputs = ((2, 8), (2, 8), (3, 5), (3, 5))
    assert preimage_chain((Chunk(dim=0, chunks=2),), outputs) == ((4, 8), (6, 5))


def test_a_stack_tells_how_many_went_in() -> None:
    steps = (Transpose(), Stack(dim=0))
    assert preimage_chain(steps, ((3, 8, 4),)) == ((4, 8),) * 3


def test_an_unstack_is_worked_back_only_from_a_known_single_source() -> None:
    outputs = ((4,), (4,))
    assert preimage_chain((Unstack(dim=0),), outputs, sources=1) == ((2, 4),)
    assert preimage_chain((Unstack(dim=0),), outputs) is None


def test_a_reshape_leaves_the_sources_undetermined() -> None:
    assert preimage_chain((Reshape(shape=(4, 2)), Transpose()), ((2, 4),)) is None


def test_another_number_of_outputs_than_the_steps_give_is_refused() -> None:
    with pytest.raises(StepError, match="come out of the steps") as caught:
        preimage_chain((Chunk(dim=0, chunks=3),), ((2, 8), (2, 8)), sources=1)
    finding = caught.value.findings[0]
    assert (finding.expected, finding.got) == ("3", "2")


def test_outputs_that_do_not_make_whole_groups_are_refused() -> None:
    with pytest.raises(StepError, match="each tensor becomes 2"):
        preimage_chain((Chunk(dim=0, chunks=2),), ((2, 8),) * 3)


def test_another_number_of_sources_than_the_outputs_need_is_refused() -> None:
    with pytest.raises(StepError, match="go into stack"):
        preimage_chain((Stack(dim=0),), ((3, 4, 8),), sources=2)


def test_what_casts_round_to_zero_is_told_by_tensor() -> None:
    told: list[list[int]] = []
    steps = (Split(dim=0, sizes=(1, 3)), Cast("F16"), Transpose(), Cast("F8_E4M3"))
    tensor = torch.tensor([[1e-9, 1.0], [0.0, 1e-5], [1e-9, 1e-9], [2.0, 1e-4]])
    first, second = map(tensor_of, apply_chain(steps, [array_of(tensor)], flushed=told.append))
    assert told == [[1, 2], [0, 2]]
    assert (first.tolist(), second.tolist()) == ([[0.0], [1.0]], [[0.0, 0.0, 2.0], [0.0] * 3])
