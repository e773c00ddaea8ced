from collections.abc import Callable

import pytest
import torch
from arrays import apply
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from converter.errors import RuleError, StepError, ValueRefusedError
from converter.spec import TensorSpec
from converter.steps.fold_batch_norm import FoldBatchNorm

EPS = 1e-3


def layers(make: Callable[[], nn.Module], features: int) -> tuple[nn.Module, nn.Module]:
    """Return a layer and a batch norm for one dim of its output, both with random statistics."""
    torch.manual_seed(features)
    norm = nn.BatchNorm1d(features, eps=EPS)
    for name in ("weight", "bias", "running_mean"):
        with torch.no_grad():
            getattr(norm, name).normal_()
    norm.get_buffer("running_var").uniform_(0.05, 2)
    return make().eval(), norm.eval()


def tensors(layer: nn.Module, norm: nn.Module) -> list[Tensor]:
    """Return the tensors of a pair in the order of the step, without those that it lacks."""
    named = [
        *(getattr(layer, name) for name in ("weight", "bias")),
        *(getattr(norm, name) for name in ("weight", "bias", "running_mean", "running_var")),
    ]
    return [tensor.detach() for tensor in named if tensor is not None]


def ulps_apart(first: Tensor, second: Tensor) -> int:
    """Return the largest distance in units of the last place; the signs agree."""
    return int((first.view(torch.int32) - second.view(torch.int32)).abs().max())


def units_apart(first: Tensor, second: Tensor) -> float:
    """Return the largest distance in units of the last place of the largest element.

    A bias is a difference: of what it cancels, torch has rounded the parts.
    """
    unit = torch.finfo(torch.float32).eps * second.abs().max()
    return float(((first - second).abs() / unit).max())


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    ("make", "dim", "fuse"),
    [
        pytest.param(lambda bias: nn.Conv1d(6, 8, 5, bias=bias), 0, fuse_conv_bn_eval, id="conv"),
        pytest.param(
            lambda bias: nn.Conv2d(6, 8, 3, groups=2, bias=bias),
            0,
            fuse_conv_bn_eval,
            id="grouped conv",
        ),
        pytest.param(lambda bias: nn.Linear(6, 8, bias=bias), 0, fuse_linear_bn_eval, id="linear"),
        pytest.param(
            lambda bias: nn.ConvTranspose1d(6, 8, 4, bias=bias),
            1,
            lambda conv, norm: fuse_conv_bn_eval(conv, norm, transpose=True),
            id="transposed conv",
        ),
    ],
)
def test_it_is_within_4_ulp_of_torch(
    make: Callable[[bool], nn.Module], dim: int, fuse: Callable[..., nn.Module], biased: bool
) -> None:
    layer, norm = layers(lambda: make(biased), 8)
    given = tensors(layer, norm)
    fused = fuse(layer, norm)
    weight, bias = apply(FoldBatchNorm(dim, EPS), given)
    assert ulps_apart(weight, fused.get_parameter("weight").detach()) <= 4
    assert units_apart(bias, fused.get_parameter("bias").detach()) <= 4


@pytest.mark.parametrize("biased", [True, False])
def test_the_folded_layer_does_what_both_did(biased: bool) -> None:
    layer, norm = layers(lambda: nn.ConvTranspose1d(6, 8, 4, bias=biased).double(), 8)
    norm.double()
    given = tensors(layer, norm)
    weight, bias = apply(FoldBatchNorm(1, EPS), given)
    x = torch.randn(2, 6, 9, dtype=torch.float64)
    folded = nn.functional.conv_transpose1d(x, weight, bias)
    assert torch.allclose(folded, norm(layer(x)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("biased", [True, False])
def test_a_norm_without_weight_and_bias_folds_as_one_of_ones_and_zeros(biased: bool) -> None:
    layer, norm = layers(lambda: nn.Linear(6, 8, bias=biased), 8)
    whole = tensors(layer, norm)
    *layer_tensors, _, _, mean, variance = whole
    ones, zeros = torch.ones(8), torch.zeros(8)
    plain = apply(FoldBatchNorm(0, EPS), [*layer_tensors, mean, variance])
    stated = apply(FoldBatchNorm(0, EPS), [*layer_tensors, ones, zeros, mean, variance])
    for first, second in zip(plain, stated, strict=True):
        assert torch.equal(first, second)


def test_both_results_are_of_the_dtype_of_the_weight() -> None:
    weight, channel = torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(2)
    made = apply(FoldBatchNorm(0, EPS), [weight, *[channel] * 4])
    assert [tensor.dtype for tensor in made] == [torch.bfloat16, torch.bfloat16]


@pytest.mark.parametrize("variance", [-1.0, -EPS, float("nan"), float("inf")])
def test_a_variance_that_is_no_positive_number_is_refused(variance: float) -> None:
    one = torch.ones(2)
    with pytest.raises(ValueRefusedError, match="1 of 2 variances are no positive number"):
        apply(FoldBatchNorm(0, EPS), [torch.ones(2, 3), one, one, one, torch.tensor([1, variance])])


def test_a_weight_that_overflows_is_refused() -> None:
    one = torch.ones(1, dtype=torch.float16)
    tiny = torch.tensor([1e-4], dtype=torch.float16)
    weight = torch.full((1, 2), 6000.0, dtype=torch.float16)
    with pytest.raises(ValueRefusedError, match="2 of 2 values overflow F16"):
        apply(FoldBatchNorm(0, 0), [weight, one, one, one, tiny])


def test_a_list_that_is_no_layer_and_norm_is_refused() -> None:
    weight, channel = TensorSpec("F32", (8, 4)), TensorSpec("F32", (8,))
    with pytest.raises(StepError, match="not a layer and its norm"):
        FoldBatchNorm(0, EPS).infer((weight, channel))
    with pytest.raises(StepError, match="the variance is not one number for each") as caught:
        FoldBatchNorm(0, EPS).infer((weight, *[channel] * 3, TensorSpec("F32", (4,))))
    finding = caught.value.findings[0]
    assert finding.expected == "[8], for weight F32 [8, 4] and dim 0"
    assert finding.hint == "5 tensors are weight, gamma, beta, mean, variance"
    with pytest.raises(StepError, match="I64 cannot be folded"):
        FoldBatchNorm(0, EPS).infer((weight, *[channel] * 3, TensorSpec("I64", (8,))))


@pytest.mark.parametrize("eps", [-1e-5, float("inf"), float("nan")])
def test_an_eps_that_is_no_epsilon_is_refused(eps: float) -> None:
    with pytest.raises(RuleError, match="no eps"):
        FoldBatchNorm(0, eps)


def test_a_bias_that_does_not_fit_the_weight_is_refused_before_the_source_is_seen() -> None:
    assert FoldBatchNorm(0, EPS).preimage(((8, 4), (8,))) is None
    with pytest.raises(StepError, match="the bias is not one number for each output channel"):
        FoldBatchNorm(1, EPS).preimage(((8, 4), (8,)))
