import pytest
import torch
from arrays import apply

from converter.errors import StepError
from converter.spec import TensorSpec
from converter.steps.squeeze import Squeeze


def test_only_the_stated_dim_goes() -> None:
    (out,) = apply(Squeeze(dim=2), [torch.zeros(1, 3, 1)])
    assert out.shape == (1, 3)


def test_a_dim_of_another_size_is_refused() -> None:
    with pytest.raises(StepError, match="dim 0 is not of size 1"):
        Squeeze(dim=0).infer((TensorSpec("F32", (3, 1)),))


def test_the_output_tells_the_shape_of_the_input() -> None:
    assert Squeeze(dim=2).preimage(((4, 8),)) == ((4, 8, 1),)


def test_an_output_too_short_for_the_dim_has_no_preimage() -> None:
    with pytest.raises(StepError, match="no place for a new dim 3"):
        Squeeze(dim=3).preimage(((4, 8),))
