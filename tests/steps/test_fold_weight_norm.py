import math
import warnings
from collections.abc import Callable

import pytest
import torch
from arrays import apply
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, remove_weight_norm, weight_norm

from converter.errors import StepError, ValueRefusedError
from converter.spec import TensorSpec
from converter.steps import fold_weight_norm
from converter.steps.fold_weight_norm import FoldWeightNorm

LAYERS = [
    pytest.param(make, dim, id=f"{name}-{dim}")
    for name, make, dims in (
        ("linear", lambda: nn.Linear(96, 40), 2),
        ("conv", lambda: nn.Conv1d(24, 32, 7), 3),
        ("transposed_conv", lambda: nn.ConvTranspose1d(32, 24, 16), 3),
    )
    for dim in range(dims)
]


def test_a_row_becomes_its_direction_times_its_gain() -> None:
    gain, direction = torch.tensor([[10.0], [-1.0]]), torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    (weight,) = apply(FoldWeightNorm(dim=0), [gain, direction])
    assert weight.tolist() == [[6.0, 8.0], [0.0, -1.0]]


def test_the_norm_runs_over_all_dims_but_the_stated() -> None:
    gain, direction = (
        torch.tensor([[[10.0], [2.0]]]),
        torch.tensor([[[3.0], [0.0]], [[4.0], [5.0]]]),
    )
    (weight,) = apply(FoldWeightNorm(dim=1), [gain, direction])
    assert weight.tolist() == [[[6.0], [0.0]], [[8.0], [2.0]]]


def ulps_apart(first: Tensor, second: Tensor) -> int:
    """Return the largest distance in units of the last place; the signs agree."""
    return int((first.view(torch.int32) - second.view(torch.int32)).abs().max())


def random_gain(g: Tensor) -> None:
    """Make the gain differ from the norm, which is where it starts."""
    with torch.no_grad():
        g.mul_(torch.rand_like(g) + 0.5)


@pytest.mark.parametrize(("make", "dim"), LAYERS)
def test_it_is_within_8_ulp_of_torch_removing_the_hook(
    make: Callable[[], nn.Module], dim: int
) -> None:
    torch.manual_seed(dim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        layer = weight_norm(make(), dim=dim)
    random_gain(layer.get_parameter("weight_g"))
    pair = [layer.get_parameter(name).detach() for name in ("weight_g", "weight_v")]
    remove_weight_norm(layer)
    (weight,) = apply(FoldWeightNorm(dim), pair)
    assert ulps_apart(weight, layer.get_parameter("weight").detach()) <= 8


@pytest.mark.parametrize(("make", "dim"), LAYERS)
def test_it_is_within_8_ulp_of_torch_removing_the_parametrization(
    make: Callable[[], nn.Module], dim: int
) -> None:
    torch.manual_seed(dim)
    layer = parametrizations.weight_norm(make(), dim=dim)
    names = [f"parametrizations.weight.original{number}" for number in (0, 1)]
    random_gain(layer.get_parameter(names[0]))
    pair = [layer.get_parameter(name).detach() for name in names]
    parametrize.remove_parametrizations(layer, "weight")
    (weight,) = apply(FoldWeightNorm(dim), pair)
    assert ulps_apart(weight, layer.get_parameter("weight").detach()) <= 8


def test_it_is_the_correctly_rounded_weight() -> None:
    torch.manual_seed(0)
    gain, direction = torch.rand(5, 1), torch.randn(5, 33)
    (weight,) = apply(FoldWeightNorm(dim=0), [gain, direction])
    for g, v, w in zip(gain.flatten().tolist(), direction.tolist(), weight.tolist(), strict=True):
        norm = math.sqrt(math.fsum(x * x for x in v))
        assert w == torch.tensor([x * (g / norm) for x in v]).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    gain, direction = torch.tensor([[5.0]], dtype=dtype), torch.tensor([[3.0, 4.0]], dtype=dtype)
    (weight,) = apply(FoldWeightNorm(dim=0), [gain, direction])
    assert weight.dtype == dtype
    assert weight.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_the_size_of_a_block_does_not_show(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    direction = torch.randn(5, 6, 7)
    gain = torch.rand([size if at == dim else 1 for at, size in enumerate(direction.shape)])
    (whole,) = apply(FoldWeightNorm(dim), [gain, direction])
    monkeypatch.setattr(fold_weight_norm, "_BLOCK_ELEMENTS", 1)
    (by_row,) = apply(FoldWeightNorm(dim), [gain, direction])
    assert torch.equal(whole, by_row)


def test_a_transposed_view_folds_as_its_copy() -> None:
    gain, view = torch.rand(6, 1), torch.randn(4, 6).t()
    (from_view,) = apply(FoldWeightNorm(dim=0), [gain, view])
    (from_copy,) = apply(FoldWeightNorm(dim=0), [gain, view.contiguous()])
    assert torch.equal(from_view, from_copy)


def test_rows_of_zeros_are_refused_with_their_number() -> None:
    direction = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueRefusedError, match="2 of 3 rows of v are zero"):
        apply(FoldWeightNorm(dim=0), [torch.ones(3, 1), direction])


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_nan_and_infinity_are_refused(which: int, broken: float) -> None:
    pair = [torch.ones(2, 1), torch.ones(2, 3)]
    pair[which][0, 0] = broken
    with pytest.raises(ValueRefusedError, match="1 of 2 rows of g and v mean no finite weight"):
        apply(FoldWeightNorm(dim=0), pair)


def test_a_gain_beyond_all_proportion_to_the_norm_is_refused() -> None:
    gain = torch.tensor([[1e308]], dtype=torch.float64)
    direction = torch.tensor([[1e-100]], dtype=torch.float64)
    with pytest.raises(ValueRefusedError, match="1 of 1 rows of g and v mean no finite weight"):
        apply(FoldWeightNorm(dim=0), [gain, direction])


def test_a_gain_of_another_dim_is_refused_with_the_shape_expected() -> None:
    g, v = TensorSpec("F32", (1, 4)), TensorSpec("F32", (8, 4))
    with pytest.raises(StepError, match="does not match the direction") as caught:
        FoldWeightNorm(dim=0).infer((g, v))
    finding = caught.value.findings[0]
    assert finding.expected == "g [8, 1] for v F32 [8, 4] and dim 0"
    assert finding.hint == "set dim to the one along which g is not 1"


def test_a_pair_in_the_other_order_is_told_so() -> None:
    g, v = TensorSpec("F32", (8, 1)), TensorSpec("F32", (8, 4))
    with pytest.raises(StepError) as caught:
        FoldWeightNorm(dim=0).infer((v, g))
    assert caught.value.findings[0].hint == "list g before v"


@pytest.mark.parametrize(("gain", "direction"), [("F32", "F16"), ("I64", "I64")])
def test_dtypes_that_differ_or_are_no_floats_are_refused(gain: str, direction: str) -> None:
    with pytest.raises(StepError, match="not of one floating dtype"):
        FoldWeightNorm(dim=0).infer((TensorSpec(gain, (8, 1)), TensorSpec(direction, (8, 4))))


def test_a_tensor_alone_is_refused() -> None:
    with pytest.raises(StepError, match="not a pair"):
        FoldWeightNorm(dim=0).infer((TensorSpec("F32", (8, 4)),))


def test_the_weight_tells_the_shapes_of_the_pair() -> None:
    assert FoldWeightNorm(dim=0).preimage(((8, 4, 3),)) == ((8, 1, 1), (8, 4, 3))


def test_norms_whose_squares_float64_cannot_hold_are_refused() -> None:
    gain = torch.ones(2, 1, dtype=torch.float64)
    direction = torch.tensor([[2e-162, 2e-162], [3.0, 4.0]], dtype=torch.float64)
    with pytest.raises(ValueRefusedError, match="1 of 2 rows of v are too small or large"):
        apply(FoldWeightNorm(dim=0), [gain, direction])
