import pytest
import torch
from arrays import apply

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.reshape import Reshape


def test_elements_keep_their_row_major_order() -> None:
    (out,) = apply(Reshape(shape=(3, 2)), [torch.arange(6).reshape(2, 3)])
    assert out.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_a_transposed_view_is_read_in_its_own_order() -> None:
    (out,) = apply(Reshape(shape=(6,)), [torch.arange(6).reshape(2, 3).t()])
    assert out.tolist() == [0, 3, 1, 4, 2, 5]


def test_another_number_of_elements_is_refused() -> None:
    with pytest.raises(StepError, match="numbers of elements differ") as caught:
        Reshape(shape=(4, 2)).infer((TensorSpec("F32", (3, 2)),))
    assert caught.value.findings[0].got == "6 elements, of F32 [3, 2]"


def test_a_size_to_be_inferred_is_refused() -> None:
    with pytest.raises(RuleError, match="negative size") as caught:
        Reshape(shape=(4, -1))
    assert caught.value.findings[0].hint == "state every size; none is inferred"


def test_a_scalar_is_a_shape() -> None:
    assert Reshape(shape=()).infer((TensorSpec("F32", (1, 1)),)) == (TensorSpec("F32", ()),)


def test_the_output_alone_does_not_tell_the_input() -> None:
    assert Reshape(shape=(4, 2)).preimage(((4, 2),)) is None


def test_an_output_of_another_shape_has_no_preimage() -> None:
    with pytest.raises(StepError, match="not of the stated shape"):
        Reshape(shape=(4, 2)).preimage(((2, 4),))
