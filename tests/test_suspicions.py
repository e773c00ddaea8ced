from collections.abc import Sequence

import pytest

from converter.manifest import Statistics, TensorRecord
from converter.suspicions import suspicions


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


def test_equal_matrices_that_no_alias_declares_are_reported_once() -> None:
    twins = [
        record(name, Statistics(0.1, std, -1.0, 1.0), sha256=digest)
        for name, std, digest in (("a", 1.0, "x"), ("b", 2.0, "y"), ("c", 1.0, "x"))
    ]
    (finding,) = suspicions(twins)
    assert (finding.code, finding.tensor, finding.severity) == ("equal-tensors", "a, c", "warning")


def test_matrices_of_one_value_may_be_equal() -> None:
    assert codes([record(name, Statistics(1.0, 0.0, 1.0, 1.0), sha256="x") for name in "ab"]) == []
