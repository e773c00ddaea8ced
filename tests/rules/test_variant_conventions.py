"""A variant may state conventions otherwise, and only those that the file states."""

from __future__ import annotations

import pytest

from converter.errors import RuleError, UsageError
from converter.rules import parse
from converter.rules.rule_file import RuleFile
from converter.rules.settings import resolve

TEXT = """\
format: 1
model: m
title: A model
origin: here
dtypes: [F32]
conventions: {activation: relu, norm_eps: 1e-5}
variants:
  size:
    small: {}
    large: {conventions: {activation: silu}}
  age:
    new: {}
    old: {conventions: {OLD}}
rules:
  - from: a
    to:
      a: [4]
"""


def rules(old: str = "norm_eps: 1e-6") -> RuleFile:
    return parse.parse(TEXT.replace("OLD", old).encode(), "m.yaml")


@pytest.mark.parametrize(
    ("variant", "conventions"),
    [
        ((), {"activation": "relu", "norm_eps": 1e-5}),
        (("large",), {"activation": "silu", "norm_eps": 1e-5}),
        (("large", "old"), {"activation": "silu", "norm_eps": 1e-6}),
    ],
)
def test_the_conventions_of_a_choice_are_those_of_its_variants(
    variant: tuple[str, ...], conventions: dict[str, object]
) -> None:
    assert resolve(rules(), variant=variant).conventions == conventions
    assert rules().conventions == {"activation": "relu", "norm_eps": 1e-5}


def test_a_variant_of_conventions_is_not_the_default() -> None:
    assert resolve(rules()).variant == ("small", "new")


def test_two_variants_that_state_one_convention_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="both set the convention activation"):
        resolve(rules("activation: mish"), variant=("large", "old"))


def test_a_convention_that_the_file_does_not_state_is_refused() -> None:
    with pytest.raises(RuleError) as caught:
        rules("rope: none")
    (finding,) = caught.value.findings
    assert finding.where == "m.yaml:13"
    assert "'rope', which is none of the file's conventions" in finding.what


def test_a_value_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(RuleError, match=r"variants\.age\.old\.conventions\.activation"):
        rules("activation: wild")
