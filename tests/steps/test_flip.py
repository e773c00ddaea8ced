import numpy as np
import pytest

from converter.errors import StepError
from converter.spec import TensorSpec
from converter.steps.flip import Flip
from converter.steps.runs import MAX_RUNS


def test_the_elements_of_the_dim_come_in_the_opposite_order() -> None:
    tensor = np.arange(6).reshape(2, 3)
    assert Flip(dim=0).apply([tensor])[0].tolist() == [[3, 4, 5], [0, 1, 2]]
    assert Flip(dim=1).apply([tensor])[0].tolist() == [[2, 1, 0], [5, 4, 3]]


def test_a_dim_that_is_absent_is_refused() -> None:
    with pytest.raises(StepError, match="no dim 1"):
        Flip(dim=1).infer((TensorSpec("F32", (3,)),))
    with pytest.raises(StepError, match="no dim 1"):
        Flip(dim=1).preimage(((3,),))


def test_a_dim_of_very_many_elements_is_moved_in_memory() -> None:
    assert Flip(dim=0).runs((TensorSpec("F32", (MAX_RUNS + 1, 8)),)) is None
