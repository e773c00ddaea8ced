import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from converter.manifest import Statistics, TensorRecord
from converter.moments import StatisticsStream
from converter.suspicions import suspicions, underflow


def record(name: str, stats: Statistics | None, **changes: object) -> TensorRecord:
    fields = {"shape": (64, 64), "sha256": f"digest of {name}"} | changes
    return TensorRecord(name, "file", "F32", offset=0, size=0, stats=stats, **fields)  # type: ignore[arg-type]


def matrices(stds: Sequence[float], mean: float = 0.0) -> list[TensorRecord]:
    return [record(str(n), Statistics(mean, std, -1.0, 1.0)) for n, std in enumerate(stds)]


def codes(records: list[TensorRecord]) -> list[str]:
    return [finding.code for finding in suspicions(records)]


def test_matrices_with_one_common_std_look_initialised() -> None:
    assert codes(matrices([0.0200, 0.0201, 0.0202, 0.5])) == ["looks-initialised"]


@pytest.mark.parametrize(
    "records",
    [
        matrices([0.01, 0.02, 0.03, 0.04, 0.05]),
        matrices([0.02, 0.02, 0.5, 0.6]),
        matrices([0.02, 0.02, 0.02]),
        matrices([0.02] * 5, mean=0.01),
        matrices([0.0] * 5),
        [record(str(n), None) for n in range(5)],
        [record(str(n), Statistics(0.0, 0.02, -1, 1), shape=(31, 33)) for n in range(5)],
        [record(str(n), Statistics(0.0, 0.02, -1, 1), shape=(4096,)) for n in range(5)],
    ],
    ids=["apart", "half", "few", "off centre", "zeros", "no statistics", "small", "vectors"],
)
def test_trained_or_small_tensors_look_like_nothing(records: list[TensorRecord]) -> None:
    assert codes(records) == []


# Real initialisers, and values as training leaves them


def measured(tensors: dict[str, Tensor]) -> list[TensorRecord]:
    """The records of float tensors, by their real statistics."""
    records = []
    for name, tensor in tensors.items():
        stream = StatisticsStream("F32")
        stream.add(memoryview(tensor.detach().numpy().tobytes()))
        records.append(record(name, stream.result(), shape=tuple(tensor.shape)))
    return records


def vocoder() -> nn.Module:
    sizes = [256, 128, 64, 32]
    return nn.ModuleList(
        layer
        for wide, narrow in pairwise(sizes)
        for layer in (nn.ConvTranspose1d(wide, narrow, 8), nn.Conv1d(narrow, narrow, 7))
    )


def transformer(*, std: float | None = None) -> nn.Module:
    """A transformer as torch initialises it, or with every matrix drawn with one ``std``."""
    layers = nn.ModuleList(
        nn.TransformerDecoderLayer(64, 4, 256, batch_first=True) for _ in range(3)
    )
    for parameter in layers.parameters():
        if std is not None and parameter.dim() > 1:
            nn.init.normal_(parameter, std=std)
    return layers


def scaled(draw: Callable[[Tensor], Tensor]) -> nn.Module:
    layers = [nn.Linear(48 + 16 * n, 64 + 24 * n) for n in range(6)]
    for layer in layers:
        draw(layer.weight)
    return nn.ModuleList(layers)


INITIALISED: dict[str, Callable[[], nn.Module]] = {
    "one std": lambda: transformer(std=0.02),
    "torch: convolutions": vocoder,
    "torch: a transformer": transformer,
    "torch: a recurrent network": lambda: nn.LSTM(48, 64, 2),
    "xavier, uniform": lambda: scaled(nn.init.xavier_uniform_),
    "xavier, normal": lambda: scaled(nn.init.xavier_normal_),
    "kaiming, uniform": lambda: scaled(nn.init.kaiming_uniform_),
    "kaiming, normal": lambda: scaled(nn.init.kaiming_normal_),
    "truncated": lambda: scaled(lambda weight: nn.init.trunc_normal_(weight, std=0.02)),
    "orthogonal": lambda: scaled(nn.init.orthogonal_),
}


@pytest.mark.parametrize("make", INITIALISED.values(), ids=INITIALISED)
def test_what_initialisers_leave_is_seen(make: Callable[[], nn.Module]) -> None:
    with torch.random.fork_rng():
        for seed in range(5):
            torch.manual_seed(seed)
            assert codes(measured(make().state_dict())) == ["looks-initialised"]


def test_layers_that_begin_at_zero_hide_nothing() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tensors = vocoder().state_dict()
    zeros = {f"modulation.{n}": torch.zeros(64, 64) for n in range(6)}
    assert codes(measured(tensors | zeros)) == ["looks-initialised"]


def test_a_few_outliers_are_a_trace_of_training() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tensors = vocoder().state_dict()
    for tensor in tensors.values():
        tensor.view(-1)[0] = 12 * tensor.std()
    assert codes(measured(tensors)) == []


def test_a_mean_that_moved_is_a_trace_of_training() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tensors = vocoder().state_dict()
    moved = {name: tensor + 0.1 * tensor.std() for name, tensor in tensors.items()}
    assert codes(measured(moved)) == []


# Measured: name, shape, mean, std, min and max of the matrices of published models.
TRAINED = json.loads((Path(__file__).parent / "golden" / "trained_statistics.json").read_text())


@pytest.mark.parametrize("model", TRAINED)
def test_published_models_look_trained(model: str) -> None:
    records = [
        record(name, Statistics(*figures), shape=tuple(shape))
        for name, shape, *figures in TRAINED[model]
    ]
    assert len(records) >= 7
    assert codes(records) == []


def test_equal_matrices_that_no_alias_declares_are_reported_once() -> None:
    twins = [
        record(name, Statistics(0.1, std, -1.0, 1.0), sha256=digest)
        for name, std, digest in (("a", 1.0, "x"), ("b", 2.0, "y"), ("c", 1.0, "x"))
    ]
    (finding,) = suspicions(twins)
    assert (finding.code, finding.tensor, finding.severity) == ("equal-tensors", "a, c", "warning")


def test_matrices_of_one_value_may_be_equal() -> None:
    assert codes([record(name, Statistics(1.0, 0.0, 1.0, 1.0), sha256="x") for name in "ab"]) == []


# What casts rounded to zero


def test_values_that_became_zero_are_reported_once_with_the_worst_tensor() -> None:
    records = [record(f"layers.{n}.w", None) for n in range(3)] + [record("bias", None, shape=(8,))]
    flushed = {"layers.0.w": 0, "layers.1.w": 2000, "layers.2.w": 30, "bias": 7}
    (finding,) = underflow(flushed, records)
    assert (finding.code, finding.severity) == ("underflow", "warning")
    assert finding.tensor == "layers.{1..2}.w, bias"
    assert finding.got == "2,037 of 8,200 values; most of them, by size, in bias: 7 of 8"


def test_nothing_is_said_where_nothing_became_zero() -> None:
    assert underflow({}, [record("w", None)]) == underflow({"w": 0}, [record("w", None)]) == []
