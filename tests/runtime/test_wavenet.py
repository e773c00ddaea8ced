from __future__ import annotations

import pytest
import torch

from converter.runtime.networks.wavenet import ReflectConv1d, WaveNet


def identity(kernel: int, dilation: int = 1, *, tap: int) -> ReflectConv1d:
    """A convolution that copies one of its taps."""
    conv = ReflectConv1d(1, 1, kernel, dilation=dilation, bias=False)
    conv.weight = torch.nn.Parameter(
        torch.nn.functional.one_hot(torch.tensor([[tap]]), kernel) * 1.0
    )
    return conv.requires_grad_(requires_grad=False)


@pytest.mark.parametrize(
    ("kernel", "dilation", "tap", "frames", "expected"),
    [
        pytest.param(5, 1, 0, [1, 2, 3, 4], [3, 2, 1, 2], id="the left end is reflected"),
        pytest.param(5, 1, 4, [1, 2, 3, 4], [3, 4, 3, 2], id="the right end is reflected"),
        pytest.param(3, 2, 0, [1, 2, 3, 4], [3, 2, 1, 2], id="dilation widens the padding"),
        pytest.param(4, 1, 0, [1, 2, 3, 4], [3, 2, 1, 2], id="an odd frame goes to the left"),
        pytest.param(5, 1, 0, [1, 2], [0, 2], id="two frames are extended by a zero on the right"),
        pytest.param(5, 1, 4, [1, 2], [0, 2], id="and what extends them is cut after reflection"),
        pytest.param(5, 1, 0, [1], [0], id="one frame reflects zeros"),
        pytest.param(1, 1, 0, [1, 2], [1, 2], id="a kernel of one needs no padding"),
    ],
)
def test_convolutions_keep_the_number_of_frames(
    kernel: int, dilation: int, tap: int, frames: list[int], expected: list[int]
) -> None:
    conv = identity(kernel, dilation, tap=tap)
    assert conv(torch.tensor([[frames]]).float()).flatten().tolist() == expected


def test_a_single_layer_has_no_residual() -> None:
    network = WaveNet(3, layers=1, kernel=3, dilation_rate=1)
    assert network.res_skip_layers[0].weight.shape == (3, 3, 1)
    y = network(torch.randn(2, 3, 7), torch.randn(2, 3), torch.ones(2, 7, dtype=torch.bool))
    assert y.shape == (2, 3, 7)


def test_frames_outside_the_mask_are_zero() -> None:
    network = WaveNet(3, layers=2, kernel=3, dilation_rate=1)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    y = network(torch.randn(2, 3, 7), torch.randn(2, 3), mask)
    assert not y[1, :, 4:].any()
    assert y[1, :, :4].all()
