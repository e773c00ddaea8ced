from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conversion_fixture import (
    MODELS,
    assert_same_tensors,
    convert_golden,
    described,
    failing,
    untrained,
)
from golden_soprano_decoder import compare_soprano_decoder, soprano_decoder_weights
from mutants import (
    Mutant,
    gelu_tanh,
    halves_swapped,
    ignored,
    replaced,
    swapped,
    with_epsilon,
)
from reference_weights import GOLDEN, HEADERS, golden_checkpoint, golden_tensors
from torch import Tensor, nn

from converter import api
from converter.dims import read_dims
from converter.errors import PlanError, UsageError
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import soprano_decoder
from converter.runtime.networks.soprano_decoder import SopranoDecoder, inverse_stft

RECORDED = golden_tensors("soprano-decoder")
STATES = RECORDED["input.hidden_states"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decoder") / "out"
    return convert_golden(out, "soprano-decoder", "soprano-decoder")


def load(directory: Path, device: str = "cpu") -> SopranoDecoder:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, SopranoDecoder)
    return network


def test_every_recorded_output_and_intermediate_is_met(directory: Path) -> None:
    differences = compare_soprano_decoder(load(directory), RECORDED)
    assert len(differences) == 4
    assert not failing(differences)


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda(directory: Path) -> None:
    network = load(directory, "cuda")
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert not failing(compare_soprano_decoder(network, RECORDED, tolerance=1e-4))


def test_every_canonical_tensor_is_the_one_that_the_facts_name(directory: Path) -> None:
    expected = soprano_decoder_weights(golden_checkpoint("soprano-decoder"))
    assert len(expected) == 2 * 9 + 9
    assert_same_tensors(load_tensors(directory), expected)


def test_the_window_is_the_closed_form_and_no_cast_rounds_it(tmp_path: Path) -> None:
    source = GOLDEN / "soprano-decoder" / "checkpoint.safetensors"
    dims = read_dims(MODELS / "soprano-decoder" / "golden-dims.yaml", [])
    api.convert(source, tmp_path / "out", model="soprano-decoder", dims=dims, dtype="bf16")
    tensors = load_tensors(tmp_path / "out")
    assert {name for name, tensor in tensors.items() if tensor.dtype == torch.float32} == {"window"}
    torch.testing.assert_close(tensors["window"], torch.hann_window(64))


def unscaled(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    network.get_parameter("blocks.0.layer_scale").data.fill_(1)


def norm_skipped(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    network.set_submodule("final_norm", nn.Identity())


def edge_bins_kept(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def spectrum_of(rows: Tensor, magnitude_max: float) -> Tensor:
        log_magnitude, phase = rows.chunk(2, dim=-1)
        return torch.polar(log_magnitude.exp().clamp(max=magnitude_max), phase)

    monkeypatch.setattr(soprano_decoder, "spectrum_of", spectrum_of)


def magnitudes_unbounded(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    assert isinstance(network, SopranoDecoder)
    network.config = replace(network.config, magnitude_max=1e9)


def transform_not_divided(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.fft, "irfft", partial(torch.fft.irfft, norm="forward"))


def window_symmetric(network: nn.Module, _: pytest.MonkeyPatch) -> None:
    network.get_buffer("window").copy_(torch.hann_window(64, periodic=False))


def corners_not_aligned(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def stretch(x: Tensor, size: int, mode: str, align_corners: bool) -> Tensor:
        return interpolate(x, size, mode=mode, align_corners=not align_corners)

    interpolate = F.interpolate
    monkeypatch.setattr(F, "interpolate", stretch)


def trimmed_early(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut 3/8 of a window in front, as a port does, instead of half of it."""
    monkeypatch.setattr(
        soprano_decoder,
        "inverse_stft",
        lambda spectrum, window, hop: inverse_stft(spectrum, window, hop).roll(len(window) // 8, 1),
    )


MUTANTS: dict[str, Mutant] = {
    "layer scale ignored": unscaled,
    "layer scales swapped": swapped("blocks.0.layer_scale", "blocks.1.layer_scale"),
    "layer scale and norm swapped": swapped("blocks.0.layer_scale", "blocks.0.norm.weight"),
    "depthwise convolutions swapped": swapped("blocks.0.depthwise", "blocks.1.depthwise"),
    "norms swapped": swapped("input_norm", "final_norm"),
    **{
        f"{norm} without weight": ignored(norm)
        for norm in ("input_norm", "blocks.0.norm", "final_norm")
    },
    "final norm skipped": norm_skipped,
    "eps 1e-2": with_epsilon(1e-2),
    "tanh gelu": replaced("gelu", gelu_tanh),
    "silu for gelu": replaced("gelu", F.silu),
    "phase before magnitude": halves_swapped("spectral_head"),
    "edge bins kept": edge_bins_kept,
    "magnitudes unbounded": magnitudes_unbounded,
    "transform not divided by n_fft": transform_not_divided,
    "window symmetric": window_symmetric,
    "corners not aligned": corners_not_aligned,
    "trimmed early": trimmed_early,
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_that_fits_every_shape_is_seen(
    mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(compare_soprano_decoder(network, RECORDED))


def test_no_matrix_of_the_golden_set_is_square_so_none_can_be_transposed_unseen() -> None:
    for tensor in golden_checkpoint("soprano-decoder").values():
        assert tensor.ndim != 2 or tensor.shape[0] != tensor.shape[1]


def test_all_tensors_reach_an_output(directory: Path) -> None:
    network = load(directory)
    for name, tensor in network.state_dict().items():
        original = tensor.clone()
        tensor[::2].mul_(1.3)  # a factor for all of the window would be divided out again
        assert failing(compare_soprano_decoder(network, RECORDED)), name
        tensor.copy_(original)


@pytest.mark.parametrize(("n_fft", "hop_length"), [(64, 16), (32, 16), (10, 7)])
def test_the_inverse_undoes_the_transform(n_fft: int, hop_length: int) -> None:
    samples, window = torch.randn(2, 20 * hop_length), torch.hann_window(n_fft)
    spectrum = torch.stft(samples, n_fft, hop_length, window=window, return_complex=True).mT
    torch.testing.assert_close(
        inverse_stft(spectrum, window, hop_length), samples, rtol=1e-4, atol=1e-4
    )


def test_the_published_size_has_the_tensors_of_its_header() -> None:
    plan = api.plan(HEADERS / "soprano-1.1-80m-decoder.json", model="soprano-decoder")
    record, shapes = described("soprano-decoder")
    assert plan.used == len(plan.targets) == 81
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    with torch.device("meta"):
        network = soprano_decoder.build(record)
    held = dict(network.named_parameters()) | dict(network.named_buffers())
    assert {name: tuple(tensor.shape) for name, tensor in held.items()} == shapes


def test_the_audio_facts_follow_the_dims() -> None:
    record, _ = described("soprano-decoder", dims={"n_fft": 64, "hop_length": 16})
    names = ("n_fft", "win_length", "hop_length", "sample_rate")
    assert [record.audio[name] for name in names] == [64, 64, 16, 32000]


SIZES = {
    "one block": {"layers": 1},
    "no block": {"layers": 0},
    "wider kernels": {"input_kernel": 3, "conv_kernel": 7},
    "no stretching": {"upscale": 1},
    "windows that hardly overlap": {"n_fft": 10, "hop_length": 7, "upscale": 3},
    "the smallest window": {"n_fft": 2, "hop_length": 1},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_sizes_run(size: str, dtype: torch.dtype) -> None:
    dims = {"layers": 3, "hidden": 9, "input": 5, "ffn": 7, "n_fft": 32, "hop_length": 8}
    dims |= {"upscale": 4} | SIZES[size]
    network = untrained("soprano-decoder", dims, dtype)
    network.get_buffer("window").copy_(torch.hann_window(dims["n_fft"]))
    for tokens in (1, 2, 9):
        waveform = network(torch.randn(2, 5, tokens, dtype=dtype))
        assert waveform.shape == (2, dims["hop_length"] * dims["upscale"] * (tokens - 1))
        assert waveform.dtype == torch.float32
        assert waveform.isfinite().all()


@pytest.mark.parametrize(
    ("dims", "because", "what"),
    [
        ({"input_kernel": 2}, "as many frames as it takes", "as many frames as it takes"),
        ({"conv_kernel": 4}, "as many frames as it takes", "as many frames as it takes"),
        ({"n_fft": 2047}, "that of half the sample rate", "n_fft 2047 has no bin at half"),
        ({"n_fft": 0}, "that of half the sample rate", "n_fft 0 has no bin at half"),
        ({"hop_length": 0}, "needs another that overlaps", "hop_length 0 is not between"),
        ({"hop_length": 2048}, "needs another that overlaps", "hop_length 2048 is not between"),
        ({"upscale": 0}, "every token makes at least one frame", "upscale 0 makes no frame"),
    ],
)
def test_impossible_dims_are_refused(dims: dict[str, int], because: str, what: str) -> None:
    with pytest.raises(PlanError, match=because):
        described("soprano-decoder", dims=dims)
    record, _ = described("soprano-decoder")
    with pytest.raises(UsageError, match=what):
        soprano_decoder.build(replace(record, dims={**record.dims, **dims}))


@pytest.mark.parametrize(
    "states", [STATES[0], STATES[:, 1:], STATES[..., :0]], ids=["no batch", "narrower", "no token"]
)
def test_inputs_of_another_shape_are_refused(states: Tensor, directory: Path) -> None:
    with pytest.raises(UsageError, match="another shape"):
        load(directory)(states)
