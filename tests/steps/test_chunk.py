import pytest
import torch
from arrays import apply

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.chunk import Chunk


def test_pieces_are_consecutive_and_equal() -> None:
    pieces = apply(Chunk(dim=0, chunks=3), [torch.arange(6)])
    assert [piece.tolist() for piece in pieces] == [[0, 1], [2, 3], [4, 5]]


def test_a_dim_that_does_not_divide_is_refused() -> None:
    with pytest.raises(StepError, match="does not divide into 4 equal chunks"):
        Chunk(dim=0, chunks=4).infer((TensorSpec("F32", (6,)),))


def test_an_empty_dim_gives_as_many_empty_pieces() -> None:
    assert len(apply(Chunk(dim=0, chunks=3), [torch.empty(0)])) == 3


def test_fewer_than_one_chunk_is_refused_without_a_tensor() -> None:
    with pytest.raises(RuleError, match="no chunks"):
        Chunk(dim=0, chunks=0)


def test_its_outputs_tell_the_shape_of_the_input() -> None:
    assert Chunk(dim=1, chunks=2).preimage(((3, 4), (3, 4))) == ((3, 8),)


def test_unequal_outputs_have_no_preimage() -> None:
    with pytest.raises(StepError, match="tensors 0 and 1 differ in shape"):
        Chunk(dim=1, chunks=2).preimage(((3, 4), (3, 5)))
