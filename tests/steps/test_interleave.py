import numpy as np
import pytest

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.deinterleave import Deinterleave
from converter.steps.interleave import Interleave

QKV = np.array([10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33])


def test_groups_are_laid_out_by_turns() -> None:
    (made,) = Interleave(dim=0, groups=3).apply([QKV])
    assert made.tolist() == [10, 20, 30, 11, 21, 31, 12, 22, 32, 13, 23, 33]


def test_a_turn_may_be_several_elements() -> None:
    (made,) = Interleave(dim=0, groups=3, size=2).apply([QKV])
    assert made.tolist() == [10, 11, 20, 21, 30, 31, 12, 13, 22, 23, 32, 33]


def test_what_lies_by_turns_is_gathered() -> None:
    (turns,) = Interleave(dim=0, groups=3, size=2).apply([QKV])
    (made,) = Deinterleave(dim=0, groups=3, size=2).apply([turns])
    assert made.tolist() == QKV.tolist()


def test_what_lies_behind_stop_stays() -> None:
    (made,) = Interleave(dim=0, groups=2, stop=4).apply([QKV])
    assert made.tolist() == [10, 12, 11, 13, *QKV[4:]]


def test_other_dims_stay_as_they_are() -> None:
    tensor = np.arange(24).reshape(2, 4, 3)
    (made,) = Deinterleave(dim=1, groups=2).apply([tensor])
    assert made.tolist() == tensor[:, [0, 2, 1, 3]].tolist()


@pytest.mark.parametrize("step", [Interleave, Deinterleave])
@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"dim": -1, "groups": 2}, "a negative dim"),
        ({"dim": 0, "groups": 0}, "no groups, or blocks of no elements"),
        ({"dim": 0, "groups": 2, "size": 0}, "no groups, or blocks of no elements"),
        ({"dim": 0, "groups": 2, "size": 2, "stop": 6}, "stop is not the end of whole blocks"),
    ],
)
def test_what_fits_no_tensor_is_refused(
    step: type[Interleave] | type[Deinterleave], fields: dict[str, int], what: str
) -> None:
    with pytest.raises(RuleError, match=what):
        step(**fields)


@pytest.mark.parametrize("step", [Interleave, Deinterleave])
def test_a_dim_that_does_not_divide_is_refused(
    step: type[Interleave] | type[Deinterleave],
) -> None:
    with pytest.raises(StepError, match="not made up of blocks") as caught:
        step(dim=0, groups=2, size=2).infer((TensorSpec("F32", (6,)),))
    assert caught.value.findings[0].expected == "a multiple of groups 2 · size 2"
    with pytest.raises(StepError, match="stop lies beyond the end of dim 0"):
        step(dim=0, groups=2, stop=8).infer((TensorSpec("F32", (6,)),))
    with pytest.raises(StepError, match="no dim 1"):
        step(dim=1, groups=2).preimage(((6,),))
