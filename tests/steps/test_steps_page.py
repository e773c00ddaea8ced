"""docs/steps.md has every step, all of its fields, and examples that hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_rules import planned

from converter.errors import ValueRefusedError
from converter.numpy_dtypes import NUMPY_DTYPES
from converter.rules import strict_yaml
from converter.spec import TensorSpec
from converter.steps import STEPS, SUGAR
from converter.steps.build import build_all, parameters
from converter.steps.chain import apply_chain, infer_chain
from converter.steps.step import Array, Step, step_parameters

PAGE = (Path(__file__).parents[2] / "docs" / "steps.md").read_text(encoding="utf-8")
SECTIONS: dict[str, str] = dict(
    re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
)
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLES: list[tuple[str, Any]] = [
    (name, strict_yaml.parse(text.encode(), "steps.md").value)
    for name, body in SECTIONS.items()
    for text in BLOCK.findall(body)
]
examples = pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=lambda it: str(it)[:20])
INVERSES = {name: re.search(r"Inverse: (none|`(\w+)`)", SECTIONS[name]) for name in STEPS}


def called(calls: list[Any]) -> tuple[Step, ...]:
    """Return the steps that a list of calls, as in a rule, stands for."""
    pairs = [(c, {}) if isinstance(c, str) else next(iter(c.items())) for c in calls]
    return tuple(step for name, values in pairs for step in build_all(name, values))


def tensors(stated: list[dict[str, Any]]) -> list[Array]:
    pairs = [next(iter(item.items())) for item in stated]
    return [np.array(values, NUMPY_DTYPES[dtype]) for dtype, values in pairs]


def specs(stated: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    dtypes = [next(iter(item)) for item in stated]
    arrays = tensors(stated)
    return tuple(TensorSpec(d, a.shape) for d, a in zip(dtypes, arrays, strict=True))


def test_every_step_and_short_way_has_a_section_with_an_example() -> None:
    assert SECTIONS.keys() == {*STEPS, *SUGAR}
    assert {name for name, _ in EXAMPLES} == {*STEPS, *SUGAR}


@pytest.mark.parametrize("name", [*STEPS, *SUGAR])
def test_the_fields_of_a_section_are_those_of_the_step(name: str) -> None:
    assert re.findall(r"^\| `(\w+)` \|", SECTIONS[name], re.MULTILINE) == [*parameters(name)]


@examples
def test_an_example_makes_what_the_page_says(name: str, example: dict[str, Any]) -> None:
    steps = called(example["steps"])
    assert name in {
        call if isinstance(call, str) else next(iter(call)) for call in example["steps"]
    }
    if "refused" in example:
        with pytest.raises(ValueRefusedError, match=f"^{re.escape(example['refused'])}"):
            apply_chain(steps, tensors(example["in"]))
        return
    assert infer_chain(steps, specs(example["in"])) == specs(example["out"])
    made = apply_chain(steps, tensors(example["in"]))
    for got, expected in zip(made, tensors(example["out"]), strict=True):
        assert got.dtype == expected.dtype
        assert got.tolist() == expected.tolist()


@examples
def test_an_example_is_what_a_rule_file_may_say(name: str, example: dict[str, Any]) -> None:
    given = specs(example["in"])
    made = specs(example.get("out", example["in"][:1]))
    source = {f"source.{number}": spec for number, spec in enumerate(given)}
    rule = {
        **({"from": [*source]} if source else {}),
        "steps": example["steps"],
        "to": {f"target.{number}": [*spec.shape] for number, spec in enumerate(made)},
    }
    dtypes = sorted({spec.dtype for spec in given} or {"F32"})
    plan = planned(f"dtypes: {json.dumps(dtypes)}\nrules: {json.dumps([rule])}", source)
    (binding,) = plan.bindings
    assert binding.steps == called(example["steps"])
    assert binding.outputs == made or "refused" in example


@examples
def test_a_short_way_stands_for_the_steps_that_the_page_lists(
    name: str, example: dict[str, Any]
) -> None:
    if name in SUGAR:
        steps = called(example["steps"])
        assert [{step.name: step_parameters(step)} for step in steps] == example["stands_for"]
    else:
        assert "stands_for" not in example


@pytest.mark.parametrize("name", STEPS)
def test_the_inverse_is_the_one_that_the_page_names(name: str) -> None:
    stated = INVERSES[name]
    assert stated is not None
    example = next(example for other, example in EXAMPLES if other == name)
    (step,) = called(example["steps"])
    inverse = step.inverse(specs(example["in"]))
    assert (inverse.name if inverse else None) == stated[2]
