import numpy as np
import pytest

from converter.errors import RuleError, StepError, ValueRefusedError
from converter.spec import TensorSpec
from converter.steps.deduplicate import Deduplicate
from converter.steps.replicate import Replicate

ONE = np.array([[1, 2], [3, 4]], np.float32)


def test_equal_tensors_become_one() -> None:
    (made,) = Deduplicate().apply([ONE, ONE.copy(), ONE.copy()])
    assert made.tolist() == ONE.tolist()


def test_the_first_that_differs_is_named_with_the_first_byte() -> None:
    other = ONE.copy()
    other[1, 0] = 3.5
    with pytest.raises(ValueRefusedError, match="tensor 2 differs from tensor 0") as caught:
        Deduplicate().apply([ONE, ONE, other, other])
    (finding,) = caught.value.findings
    assert finding.expected == "4 tensors equal byte for byte"
    assert finding.got == "another byte at 10; 1 of 16 differ"


@pytest.mark.parametrize(("first", "second"), [([0.0], [-0.0]), ([float("nan")], [-float("nan")])])
def test_bytes_are_compared_and_not_numbers(first: list[float], second: list[float]) -> None:
    pair = [np.array(values, np.float32) for values in (first, second)]
    assert pair[0].tobytes() != pair[1].tobytes()
    with pytest.raises(ValueRefusedError):
        Deduplicate().apply(pair)
    Deduplicate().apply([pair[1], pair[1].copy()])


def test_a_scalar_is_compared_too() -> None:
    with pytest.raises(ValueRefusedError, match="tensor 1 differs"):
        Deduplicate().apply([np.array(1.0), np.array(2.0)])


def test_tensors_of_another_shape_or_dtype_are_no_replicas() -> None:
    with pytest.raises(StepError, match="differ in shape"):
        Deduplicate().infer((TensorSpec("F32", (2,)), TensorSpec("F32", (2, 1))))
    with pytest.raises(StepError, match="differ in dtype"):
        Deduplicate().infer((TensorSpec("F32", (2,)), TensorSpec("I32", (2,))))


def test_how_many_there_were_comes_back() -> None:
    assert Deduplicate().inverse((TensorSpec("F32", (2,)),) * 3) == Replicate(copies=3)
    assert Replicate(copies=3).inverse((TensorSpec("F32", (2,)),)) == Deduplicate()


def test_no_copies_are_refused() -> None:
    with pytest.raises(RuleError, match="no copies"):
        Replicate(copies=0)


def test_outputs_that_are_no_copies_have_no_source() -> None:
    assert Replicate(copies=2).preimage(((3,), (3,))) == ((3,),)
    with pytest.raises(StepError, match="2 outputs are made"):
        Replicate(copies=2).preimage(((3,),))
    with pytest.raises(StepError, match="differ in shape"):
        Replicate(copies=2).preimage(((3,), (4,)))
