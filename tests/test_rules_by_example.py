"""Every example of the page on the rule language, bound to the source that it shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_rules

from converter import resources
from converter.plan import Plan
from converter.rules.lint import lint_file
from converter.spec import TensorSpec

PAGE = Path(__file__).parent.parent / "docs" / "rules-by-example.md"
_EXAMPLE = re.compile(r"```yaml\n(.*?)```\n```plan(.*?)\n(.*?)```", re.DOTALL)
_TENSOR = re.compile(r"(?P<name>[\w.]+)(?: (?P<dtype>[A-Z0-9]+))? \[(?P<shape>[\d, ]*)\]")


@dataclass(frozen=True)
class Example:
    rules: str
    options: dict[str, str]
    lines: tuple[str, ...]


def pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    return zip(words[::2], words[1::2], strict=True)


def examples() -> Iterator[Example]:
    for rules, said, lines in _EXAMPLE.findall(PAGE.read_text("utf-8")):
        words = shlex.split(said)
        options = {word.removeprefix("--"): value for word, value in pairs(words)}
        yield Example(rules, options, tuple(lines.splitlines()))


EXAMPLES = list(examples())


def source_of(lines: tuple[str, ...]) -> dict[str, TensorSpec]:
    """Return the header that the left sides show."""
    header = {}
    for line in lines:
        for match in _TENSOR.finditer(line.partition("→")[0]):
            shape = tuple(int(size) for size in match["shape"].split(",") if size.strip())
            header[match["name"]] = TensorSpec(match["dtype"] or "F32", shape)
    return header


def lines_of(plan: Plan, source: dict[str, TensorSpec], *, dtypes: bool) -> Iterator[str]:
    """Yield what the page should show of a plan."""

    def spec(one: TensorSpec) -> str:
        shown = dtypes or one.dtype != "F32"
        return str(one) if shown else str(one).partition(" ")[2]

    for binding in plan.bindings:
        given = zip(binding.sources, binding.inputs, strict=True)
        made = zip(binding.targets, binding.outputs, strict=True)
        left = ", ".join(f"{name} {spec(one)}" for name, one in given)
        right = ", ".join(f"{name} {spec(one)}" for name, one in made)
        fill = binding.stand_in.fill if binding.stand_in else left
        nan = ", may hold NaN" if plan.allow_nan.intersection(binding.targets) else ""
        yield f"{fill}  →  {right}{nan}"
    for alias, name in plan.aliases.items():
        yield f"{name}  →  {alias}, an alias"
    for drop in plan.dropped:
        value = f", if it is {drop.expect}" if drop.expect else ""
        value = f", if it equals {drop.equals}" if drop.equals else value
        yield f"{drop.name} {spec(source[drop.name])}  →  dropped{value}"
    claimed = set(plan.claimed)
    for name, one in source.items():
        if name not in claimed:
            yield f"{name} {spec(one)}  →  out of scope"


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_plan_of_an_example_is_the_one_that_is_shown(example: Example) -> None:
    assert lint_file(tiny_rules.parsed(example.rules)).findings == ()
    source = source_of(example.lines)
    dtype = example.options.get("dtype")
    plan = tiny_rules.planned(
        example.rules,
        source,
        dtype=dtype,
        variant=[name for name in example.options.get("variant", "").split(",") if name],
        source_prefix=example.options.get("source-prefix", ""),
    )
    assert tuple(lines_of(plan, source, dtypes=dtype is not None)) == example.lines


def test_every_field_of_the_language_has_an_example() -> None:
    fields = {"format", "model", "title", "origin"}
    for example in EXAMPLES:
        fields |= set(re.findall(r"^(?:  - |    )?(\w+):", example.rules, re.MULTILINE))
    schema: Any = resources.schema("rules")
    for node in (schema, *(schema["$defs"][kind] for kind in ("rule", "drop", "alias"))):
        assert set(node["properties"]) <= fields
