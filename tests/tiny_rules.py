"""Rule files of a few lines, and headers to bind them to.

A rule file of the tests is its body alone, from line 1; what every rule file must say stands
behind it, so that lines can be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from textwrap import dedent
from typing import Any, TypeAlias

import pytest

from converter.bind import bind
from converter.errors import ConverterError, PlanError, RuleError
from converter.finding import Finding
from converter.plan import Plan
from converter.rules.expand import Expansion
from converter.rules.expand import expand as expand_file
from converter.rules.lint import lint
from converter.rules.parse import parse
from converter.rules.rule_file import RuleFile
from converter.rules.settings import Settings
from converter.rules.settings import resolve as resolve_file
from converter.spec import Header, TensorSpec

Shapes: TypeAlias = "Mapping[str, Sequence[int] | TensorSpec]"

NAME = "tiny.yaml"
REQUIRED = {
    "format": "1",
    "model": "tiny",
    "title": "a model of few tensors",
    "origin": "these tests",
    "dtypes": "[F32]",
    "rules": "[{from: a, to: {b: [1]}}]",
}


def text(body: str) -> str:
    """Return a whole rule file: the body, then each required field that it lacks."""
    lines = dedent(body).lstrip("\n")
    stated = {line.partition(":")[0] for line in lines.splitlines()}
    rest = [f"{key}: {value}\n" for key, value in REQUIRED.items() if key not in stated]
    return lines.rstrip() + "\n" + "".join(rest)


def parsed(body: str) -> RuleFile:
    return parse(text(body).encode(), NAME)


def resolved(body: str, **choices: Any) -> Settings:
    return resolve_file(parsed(body), **choices)


def expanded(body: str, **choices: Any) -> Expansion:
    rule_file = parsed(body)
    expansion = expand_file(rule_file, resolve_file(rule_file, **choices))
    assert expansion.findings == ()
    return expansion


def units(body: str, **choices: Any) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return the sources and the targets of every unit, in order."""
    return [(unit.sources, unit.names) for unit in expanded(body, **choices).units]


def faults(body: str, **choices: Any) -> tuple[Finding, ...]:
    """Return what is wrong with a rule file by itself."""
    found = findings_of(RuleError, lambda: parsed(body))
    if found:
        return found
    rule_file = parsed(body)
    return lint(rule_file, resolve_file(rule_file, **choices))


def fault(body: str, **choices: Any) -> Finding:
    """Return the one thing that is wrong with a rule file by itself."""
    (finding,) = faults(body, **choices)
    return finding


def header(shapes: Shapes) -> Header:
    """Return a header of F32 tensors, but for those whose spec is given."""
    return {
        name: shape if isinstance(shape, TensorSpec) else TensorSpec("F32", tuple(shape))
        for name, shape in shapes.items()
    }


def planned(body: str, source: Shapes, *, dtype: str | None = None, **choices: Any) -> Plan:
    rule_file = parsed(body)
    return bind(rule_file, header(source), resolve_file(rule_file, **choices), dtype=dtype)


def misfits(
    body: str, source: Shapes, *, dtype: str | None = None, **choices: Any
) -> tuple[Finding, ...]:
    """Return the findings of a plan that cannot be made."""
    with pytest.raises(PlanError) as caught:
        planned(body, source, dtype=dtype, **choices)
    return caught.value.findings


def misfit(body: str, source: Shapes, *, dtype: str | None = None, **choices: Any) -> Finding:
    """Return the one finding of a plan that cannot be made."""
    (finding,) = misfits(body, source, dtype=dtype, **choices)
    return finding


def findings_of(error: type[ConverterError], call: Callable[[], object]) -> tuple[Finding, ...]:
    """Return the findings of the error that a call raises; none when it raises nothing."""
    try:
        call()
    except error as caught:
        return caught.findings
    return ()


def finding_of(error: ConverterError) -> Finding:
    """Return the one finding of an error."""
    (finding,) = error.findings
    return finding
