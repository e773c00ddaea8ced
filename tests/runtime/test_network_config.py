from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from reference_weights import record

from converter.errors import UsageError
from converter.manifest import Dim, ModelRecord, Scalar
from converter.runtime.networks.config import read_config


@dataclass(frozen=True)
class Config:
    layers: int
    flag: int
    eps: float


def model(layers: Dim = 2, eps: Scalar = 1e-5) -> ModelRecord:
    return record("small", {"layers": layers, "flag": 0, "unread": 7}, {"eps": eps, "rope": "half"})


def test_fields_are_read_under_their_own_names() -> None:
    assert read_config(Config, model()) == Config(layers=2, flag=0, eps=1e-5)


@dataclass(frozen=True)
class Lists:
    rates: tuple[int, ...]
    dilations: tuple[tuple[int, ...], ...]


def lists(rates: Dim, dilations: Dim) -> ModelRecord:
    return record("small", {"rates": rates, "dilations": dilations}, {})


def test_lists_become_tuples_however_they_nest() -> None:
    assert read_config(Lists, lists([4, 2], [[1, 3], []])) == Lists((4, 2), ((1, 3), ()))


@pytest.mark.parametrize(
    ("rates", "dilations", "name", "expected"),
    [
        (4, [[1]], "rates", "a list of integers"),
        ([[4]], [[1]], "rates", "a list of integers"),
        ([-4], [[1]], "rates", "a list of integers"),
        ([4], [1], "dilations", "a list of lists of integers"),
        ([4], [[1], 3], "dilations", "a list of lists of integers"),
    ],
)
def test_a_list_of_another_kind_is_refused(
    rates: Dim, dilations: Dim, name: str, expected: str
) -> None:
    with pytest.raises(UsageError, match=f"needs the dim '{name}'") as raised:
        read_config(Lists, lists(rates, dilations))
    (finding,) = raised.value.findings
    assert finding.expected == expected


def test_a_whole_number_serves_where_a_convention_is_asked_for() -> None:
    eps = read_config(Config, model(eps=1)).eps
    assert isinstance(eps, float)


@pytest.mark.parametrize("layers", [-1, True, [1, 2]])
def test_a_dim_of_another_kind_is_refused(layers: Dim) -> None:
    with pytest.raises(UsageError, match="needs the dim 'layers'"):
        read_config(Config, model(layers=layers))


@pytest.mark.parametrize("eps", ["1e-5", 0, -1.0, math.inf, math.nan, True, None])
def test_a_number_of_another_kind_is_refused(eps: Scalar) -> None:
    with pytest.raises(UsageError, match="needs the convention 'eps'"):
        read_config(Config, model(eps=eps))


def test_all_that_is_absent_is_said_at_once() -> None:
    with pytest.raises(UsageError) as raised:
        read_config(Config, record("small", {}, {}))
    assert [finding.code for finding in raised.value.findings] == ["dim", "dim", "convention"]
    assert all(finding.got == "nothing" for finding in raised.value.findings)
