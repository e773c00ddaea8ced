from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from parity import DIT_TOLERANCE, Difference, compare, compare_dit
from reference_weights import (
    DIT_CONVENTIONS,
    DIT_DIMS,
    ESTIMATOR,
    Tensors,
    dit_dims,
    dit_weights,
    golden_checkpoint,
    golden_tensors,
    header_tensors,
    random_weights,
    record,
)
from torch import Tensor

from converter.errors import UsageError
from converter.manifest import Scalar
from converter.runtime.networks import dit

GOLDEN = golden_tensors("s2mel")
CHECKPOINT = golden_checkpoint("s2mel")
WEIGHTS = dit_weights(CHECKPOINT)
DIMS = dit_dims()
INPUTS = {
    name: GOLDEN[f"input.estimator.{name}"]
    for name in ("x", "prompt_x", "x_lens", "t", "style", "cond")
}


def make(
    weights: Tensors | None = None,
    *,
    dims: dict[str, int] | None = None,
    conventions: dict[str, Scalar] | None = None,
) -> dit.DiT:
    model = record("dit", DIMS | (dims or {}), DIT_CONVENTIONS | (conventions or {}))
    with torch.device("meta"):
        network = dit.build(model)
    assert isinstance(network, dit.DiT)
    network.load_state_dict(weights or random_weights(network), assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def failing(differences: list[Difference]) -> list[Difference]:
    return [difference for difference in differences if not difference.holds]


def test_every_recorded_output_and_intermediate_is_met() -> None:
    differences = compare_dit(make(WEIGHTS), GOLDEN)
    assert len(differences) == 16
    assert not failing(differences)


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda() -> None:
    network = make(WEIGHTS).to("cuda")
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert not failing(compare_dit(network, GOLDEN))


def swap(first: str, second: str, weights: Tensors) -> None:
    for leaf in ("weight", "bias"):
        if f"{first}.{leaf}" in weights:
            one, other = weights[f"{first}.{leaf}"], weights[f"{second}.{leaf}"]
            weights[f"{first}.{leaf}"], weights[f"{second}.{leaf}"] = other, one


def swap_halves(module: str, weights: Tensors) -> None:
    for leaf in ("weight", "bias"):
        tensor = weights[f"{module}.{leaf}"]
        weights[f"{module}.{leaf}"] = tensor.roll(len(tensor) // 2, dims=0)


def swap_columns(name: str, first: slice, second: slice, weights: Tensors) -> None:
    tensor = weights[name].clone()
    tensor[:, first], tensor[:, second] = weights[name][:, second], weights[name][:, first]
    weights[name] = tensor


MUTANTS: dict[str, Callable[[Tensors], None]] = {
    "query and key swapped": partial(
        swap, "blocks.0.attention.q_proj", "blocks.0.attention.k_proj"
    ),
    "gate and up swapped": partial(swap, "blocks.2.ffn.gate_proj", "blocks.2.ffn.up_proj"),
    "embedders swapped": partial(swap, "timestep_embedder.fc1", "wavenet_timestep_embedder.fc1"),
    "bias before weight": partial(swap_halves, "blocks.1.attention_norm.modulation"),
    "bias before weight in the last norm": partial(swap_halves, "norm.modulation"),
    "scale before shift": partial(swap_halves, "final_layer.modulation"),
    "sigmoid before tanh": partial(swap_halves, "wavenet.in_layers.1"),
    "skip before residual": partial(swap_halves, "wavenet.res_skip_layers.0"),
    "sines before cosines": partial(
        swap_columns, "timestep_embedder.fc1.weight", slice(0, 128), slice(128, 256)
    ),
    "prompt before x": partial(
        swap_columns, "input_merge.weight", slice(0, DIMS["mels"]), slice(DIMS["mels"], 32)
    ),
    "skip before x": partial(
        swap_columns, "blocks.4.skip_proj.weight", slice(0, 32), slice(32, 64)
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_weights_in_a_wrong_place_are_seen(mutant: str) -> None:
    weights = dict(WEIGHTS)
    MUTANTS[mutant](weights)
    assert failing(compare_dit(make(weights), GOLDEN))


def test_a_weight_norm_whose_g_is_ignored_is_seen() -> None:
    for name in WEIGHTS:
        if f"{ESTIMATOR}{name}_v" in CHECKPOINT and not name.startswith("x_embedder"):
            unfolded = WEIGHTS | {name: CHECKPOINT[f"{ESTIMATOR}{name}_v"]}
            assert failing(compare_dit(make(unfolded), GOLDEN)), name


@pytest.mark.parametrize(
    ("convention", "value"),
    [("norm_eps", 1e-2), ("final_norm_eps", 1e-2), ("rope_base", 5000), ("timestep_scale", 999)],
)
def test_another_number_among_the_conventions_is_seen(convention: str, value: float) -> None:
    assert failing(compare_dit(make(WEIGHTS, conventions={convention: value}), GOLDEN))


def test_half_split_rope_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def rotate_halves(x: Tensor, rope: Tensor) -> Tensor:
        (first, second), (cos, sin) = x.chunk(2, dim=-1), rope
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    monkeypatch.setattr(dit, "rotate", rotate_halves)
    assert failing(compare_dit(make(WEIGHTS), GOLDEN))


def test_all_tensors_but_the_unread_embedder_reach_the_velocity() -> None:
    expected = GOLDEN["output.estimator.v"]

    def moves_nothing(name: str) -> bool:
        moved = make(WEIGHTS | {name: WEIGHTS[name] * 1.3})
        return failing(compare({"v": moved(**INPUTS)}, {"v": expected}, DIT_TOLERANCE)) == []

    dead = {name for name in WEIGHTS if moves_nothing(name)}
    assert dead == {"x_embedder.weight", "x_embedder.bias"}


def test_the_published_size_has_246_tensors_and_nothing_beside_them() -> None:
    with torch.device("meta"):
        network = dit.build(record("dit", DIT_DIMS, DIT_CONVENTIONS))
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    assert len(tensors) == 246
    assert network.state_dict().keys() == tensors.keys()
    assert all(tensor.is_meta for tensor in tensors.values())
    expected = dit_weights(header_tensors("s2mel"))
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }


def test_one_length_and_one_time_serve_all_rows() -> None:
    network = make(WEIGHTS)
    once = INPUTS | {"x_lens": torch.tensor([26]), "t": torch.tensor([0.5])}
    repeated = INPUTS | {"x_lens": torch.tensor([26, 26]), "t": torch.tensor([0.5, 0.5])}
    torch.testing.assert_close(network(**once), network(**repeated))


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_sizes_run(layers: int, dtype: torch.dtype) -> None:
    dims = {"hidden": 24, "heads": 3, "ffn": 40, "mels": 7, "style": 5, "content": 9}
    wavenet = {"layers": layers, "hidden": 24, "kernel": 4, "dilation_rate": 2}
    dims |= {"layers": layers, "timestep_freqs": 6}
    dims |= {f"wavenet_{name}": size for name, size in wavenet.items()}
    network = make(dims=dims).to(dtype)
    for frames in (1, 4, 30):
        velocity = network(
            torch.randn(2, 7, frames, dtype=dtype),
            torch.randn(2, 7, frames, dtype=dtype),
            torch.tensor([frames, 1]),
            torch.tensor([0.25, 0.5]),
            torch.randn(2, 5, dtype=dtype),
            torch.randn(2, frames, 9, dtype=dtype),
        )
        assert velocity.shape == (2, 7, frames)
        assert velocity.dtype == dtype
        assert velocity.isfinite().all()


def test_the_second_half_of_the_blocks_receives_skips() -> None:
    for layers, receivers in ((1, []), (2, []), (3, [2]), (4, [3]), (5, [3, 4]), (6, [4, 5])):
        blocks = make(dims={"layers": layers}).blocks
        assert [i for i, block in enumerate(blocks) if block.skip_proj is not None] == receivers


def test_skips_are_taken_last_in_first_out() -> None:
    network = make(WEIGHTS)
    outputs, skips = [], []
    for block in network.blocks:
        block.register_forward_hook(lambda _block, _inputs, output: outputs.append(output))
        block.register_forward_pre_hook(lambda _block, inputs: skips.append(inputs[1]))
    network(**INPUTS)
    assert skips[:3] == [None, None, None]
    assert skips[3] is outputs[1]
    assert skips[4] is outputs[0]


def test_timesteps_keep_float32_under_bfloat16_weights() -> None:
    full = make(WEIGHTS).timestep_embedder
    half = make(WEIGHTS).timestep_embedder.to(torch.bfloat16)
    half.freqs = full.freqs
    t = torch.tensor([0.97, 0.98, 0.99])
    torch.testing.assert_close(half(t).float(), full(t), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_of_another_shape_are_refused(name: str) -> None:
    wrong = torch.cat([INPUTS[name]] * 3)
    with pytest.raises(UsageError, match="another shape"):
        make(WEIGHTS)(**INPUTS | {name: wrong})


def test_more_frames_than_positions_are_refused() -> None:
    with pytest.raises(UsageError, match="26 frames, where the model knows 25 positions"):
        make(WEIGHTS, dims={"positions": 25})(**INPUTS)


@pytest.mark.parametrize(
    ("dims", "what"),
    [
        ({"heads": 32}, "hidden 32 does not make 32 heads of even width"),
        ({"heads": 0}, "hidden 32 does not make 0 heads of even width"),
        ({"wavenet_hidden": 16}, "wavenet_hidden 16 is not hidden 32"),
    ],
)
def test_dims_that_do_not_fit_together_are_refused(dims: dict[str, int], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        make(dims=dims)
