import pytest
import torch
from torch import Tensor

from converter.values import bytes_of, disprove

# Bytes


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).view(2, 3).t(),
        torch.arange(6.0)[::5][:1],
        torch.tensor(7.0),
        torch.arange(4.0).view(1, 4)[:, 2:3],
        torch.empty(0, 2),
    ],
    ids=["transposed", "one of a stride", "scalar", "one inside", "empty"],
)
def test_bytes_are_in_row_major_order_whatever_the_strides(tensor: Tensor) -> None:
    assert bytes_of(tensor.numpy()).tobytes() == tensor.numpy().tobytes()


# What a dropped tensor is said to be


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (2, 3), ()])
def test_a_ramp_counts_in_row_major_order(shape: tuple[int, ...]) -> None:
    count = torch.Size(shape).numel()
    ramp = torch.arange(count).view(shape)
    assert disprove("arange", ramp.numpy()) is None
    if count:
        assert disprove("arange", (ramp + 1).numpy()) is not None


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (1, 2, 3, 3)])
def test_a_triangle_has_ones_on_and_below_the_diagonal(shape: tuple[int, ...]) -> None:
    ones = torch.ones(shape)
    assert disprove("lower_triangular", ones.tril().numpy()) is None
    assert disprove("lower_triangular", ones.tril(-1).numpy()) is not None
    assert disprove("lower_triangular", ones.triu().numpy()) is not None
