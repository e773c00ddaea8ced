from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conversion_fixture import (
    assert_same_tensors,
    convert_golden,
    described,
    failing,
    untrained,
    without_effect,
)
from golden_wav2vec_bert import (
    ATTENTION,
    MUTANTS,
    TOLERANCE,
    compare_wav2vec_bert,
    wav2vec_bert_weights,
)
from parity import Difference, compare
from reference_weights import HEADERS, golden_checkpoint, golden_tensors
from torch import Tensor

from converter import api
from converter.errors import PlanError, UsageError
from converter.runtime import load_model, load_tensors
from converter.runtime.networks import wav2vec_bert
from converter.runtime.networks.wav2vec_bert import Wav2VecBert, Wav2VecBertConfig

RECORDED = golden_tensors("wav2vec-bert")
FEATURES, MASK = RECORDED["input.input_features"], RECORDED["input.attention_mask"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wav2vec-bert") / "out"
    return convert_golden(out, "wav2vec-bert", "wav2vec-bert")


@pytest.fixture(scope="module")
def directory_17(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wav2vec-bert-17") / "out"
    dims = "golden-layers-17-dims"
    return convert_golden(out, "wav2vec-bert", "wav2vec-bert", dims, variant=["layers-17"])


def load(directory: Path, device: str = "cpu") -> Wav2VecBert:
    network = load_model(directory, device=device, check="full")
    assert isinstance(network, Wav2VecBert)
    return network


def test_every_hidden_state_is_met(directory: Path) -> None:
    differences = compare_wav2vec_bert(load(directory), RECORDED)
    assert len(differences) == 21
    assert not failing(differences)


def test_seventeen_layers_give_the_hidden_state_that_is_read(directory_17: Path) -> None:
    differences = compare_wav2vec_bert(load(directory_17), RECORDED)
    assert len(differences) == 19
    assert not failing(differences)


@pytest.mark.parametrize("layers", [16, 18])
def test_one_layer_less_or_more_than_seventeen_is_seen(layers: int, directory: Path) -> None:
    network = load(directory)
    network.layers = network.layers[:layers]
    got = {"output.hidden_state_17": network(FEATURES, MASK)}
    assert failing(compare(got, {name: RECORDED[name] for name in got}, TOLERANCE))


@pytest.mark.cuda
def test_every_hidden_state_is_met_on_cuda(directory: Path) -> None:
    network = load(directory, "cuda")
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert not failing(compare_wav2vec_bert(network, RECORDED, tolerance=1e-4))


def test_every_canonical_tensor_is_the_one_that_the_facts_name(
    directory: Path, directory_17: Path
) -> None:
    source = golden_checkpoint("wav2vec-bert")
    for path, layers in ((directory, 18), (directory_17, 17)):
        expected = wav2vec_bert_weights(source, layers)
        assert len(expected) == 32 * layers + 4
        assert_same_tensors(load_tensors(path), expected)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_that_fits_every_shape_is_seen(
    mutant: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(directory)
    MUTANTS[mutant](network, monkeypatch)
    assert failing(compare_wav2vec_bert(network, RECORDED))


def test_all_tensors_of_a_layer_but_the_key_bias_reach_its_output(directory: Path) -> None:
    # A bias on the keys adds the same to all scores of a query, which softmax takes away.
    network = load(directory)
    network.layers = network.layers[:1]
    recorded = {"hidden_states.1": RECORDED["hidden_states.1"]}

    def compared() -> list[Difference]:
        return compare({"hidden_states.1": network(FEATURES, MASK)}, recorded, TOLERANCE)

    assert without_effect(network, compared) == {f"{ATTENTION}.k_proj.bias"}


def test_padding_does_not_reach_the_frames_of_a_recording(directory: Path) -> None:
    network = load(directory)
    length = int(MASK[1].sum())
    assert length < MASK.shape[1]
    alone = network(FEATURES[1:, :length])
    torch.testing.assert_close(network(FEATURES, MASK)[1:, :length], alone, rtol=1e-5, atol=1e-5)


def test_distances_are_clamped_to_the_table() -> None:
    config = Wav2VecBertConfig(1, 8, 2, 8, 4, 2, 1, 3, norm_eps=1e-5, ffn_scale=0.5)
    rows = wav2vec_bert.distance_rows(5, config, torch.device("cpu"))
    assert rows.tolist() == [
        [2, 3, 3, 3, 3],
        [1, 2, 3, 3, 3],
        [0, 1, 2, 3, 3],
        [0, 0, 1, 2, 3],
        [0, 0, 0, 1, 2],
    ]


@pytest.mark.parametrize(
    ("variant", "dropped", "count"), [("full", 1, 772), ("layers-17", 1 + 224, 548)]
)
def test_the_published_size_has_the_tensors_of_its_header(
    variant: str, dropped: int, count: int
) -> None:
    plan = api.plan(HEADERS / "w2v-bert-2.0.json", model="wav2vec-bert", variant=[variant])
    record, shapes = described("wav2vec-bert", [variant])
    assert (len(plan.dropped), plan.used, len(plan.targets)) == (dropped, count, count)
    assert {name: spec.shape for name, spec in plan.targets.items()} == shapes
    with torch.device("meta"):
        network = wav2vec_bert.build(record)
    assert {name: tuple(t.shape) for name, t in network.state_dict().items()} == shapes


SIZES = {
    "one layer of one head": {"layers": 1, "used_layers": 1, "heads": 1},
    "no layer": {"used_layers": 0},
    "some layers": {"layers": 4, "used_layers": 3, "hidden": 30, "heads": 5},
    "no distance but zero": {"left_positions": 0, "right_positions": 0},
    "kernel of one": {"conv_kernel": 1},
    "even kernel": {"conv_kernel": 4},
    "kernel of many frames": {"conv_kernel": 31},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_sizes_run(size: str, dtype: torch.dtype) -> None:
    dims = {"layers": 2, "used_layers": 2, "hidden": 16, "heads": 2, "ffn": 24, "input": 7}
    dims |= {"left_positions": 5, "right_positions": 2} | SIZES[size]
    network = untrained("wav2vec-bert", dims, dtype)
    for frames in (1, 9):
        features = torch.randn(2, frames, dims["input"], dtype=dtype)
        mask = torch.arange(frames) < torch.tensor([[frames], [1]])
        hidden = network(features, mask)
        assert hidden.shape == (2, frames, dims["hidden"])
        assert hidden.dtype == dtype
        assert hidden.isfinite().all()


@pytest.mark.parametrize(
    ("dims", "because", "what"),
    [
        ({"heads": 0}, "heads are equal slices of hidden", "does not make 0 equal heads"),
        ({"heads": 3}, "heads are equal slices of hidden", "does not make 3 equal heads"),
        ({"conv_kernel": 0}, "a convolution sees at least one frame", "at least one frame"),
    ],
)
def test_impossible_dims_are_refused(dims: dict[str, int], because: str, what: str) -> None:
    with pytest.raises(PlanError, match=because):
        described("wav2vec-bert", dims=dims)
    record, _ = described("wav2vec-bert")
    with pytest.raises(UsageError, match=what):
        wav2vec_bert.build(replace(record, dims={**record.dims, **dims}))


def test_more_layers_than_there_are_are_refused() -> None:
    with pytest.raises(PlanError, match="no more layers can be used than there are"):
        described("wav2vec-bert", dims={"used_layers": 25})


@pytest.mark.parametrize(
    ("features", "mask"),
    [(FEATURES[0], None), (FEATURES[..., 1:], None), (FEATURES, MASK[:, 1:]), (FEATURES, MASK[:1])],
    ids=["no batch", "narrower", "a shorter mask", "fewer rows of the mask"],
)
def test_inputs_of_another_shape_are_refused(
    features: Tensor, mask: Tensor | None, directory: Path
) -> None:
    with pytest.raises(UsageError, match="another shape"):
        load(directory)(features, mask)
