"""Every finding that docs/lint.md lists is one that lint gives, and it lists all of them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_rules import text

from converter import api

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "lint.md"
EXAMPLES = {
    "rule": "rules: [{from: a, steps: [{slice: {dim: 0, start: 4, stop: 2, because: x}}], "
    "to: {b: [1]}}]",
    "yaml": "dims: {vocab: 1_000}",
    "field": 'title: ""',
    "unknown-field": "rules: [{from: a, stpes: [], to: {b: [1]}}]",
    "unknown-step": "rules: [{from: a, steps: [transpoze], to: {b: [1]}}]",
    "name": 'rules: [{from: "layers.*.weight", to: {b: [1]}}]',
    "expression": "rules: [{from: a, to: {b: [8 / 2]}}]",
    "dim": "dims: {n: 1}\nvariants: {v: {a: {}, b: {dims: {n: [1, 2]}}}}\n"
    "rules: [{from: a, to: {b: [n]}}]",
    "absent-dtype": "dtypes: [F32, F16]\nrules: [{from: a, absent: zeros, to: {b: [1]}}]",
    "drop-count": 'drop: [{name: "layers.1**", count: 2, because: x}]',
    "undecided": 'rules: [{from: a, to: {"?": [1]}}]',
    "unknown-name": 'rules: [{from: "layers.{j}.weight", to: {b: [1]}}]',
    "namespace": "dims: {i: 2}\nindex: {i: 2}",
    "word": 'words: {gamma: weight}\nrules: [{from: "{gamma}", to: {"x.{gamma}": [1]}}]',
    "gather": 'index: {e: 2}\nrules: [{from: "a.{e}", gather: e, to: {"b.{e}": [1]}}]',
    "scatter": 'index: {e: 2}\nrules: [{from: "a.{e}", scatter: e, to: {"b.{e}": [1]}}]',
    "unused": "dims: {dropout: 1}",
    "idle-condition": "rules: [{from: a, when: 1 == 1, to: {b: [1]}}]",
    "unreachable": "index: {i: 9..3}\nrules: [{from: a, to: {b: [1]}}, "
    '{from: "c.{i}", to: {"d.{i}": [1]}}]',
    "collision": "rules: [{from: a, to: {x: [4]}}, {from: b, to: {x: [4]}}]",
    "target": "rules: [{from: a, to: {a/b: [4]}}]",
    "module": "rules: [{from: a, to: {norm: [1]}}, {from: b, to: {norm.weight: [1]}}]",
    "gap": 'index: {i: 3}\nrules: [{from: "a.{i}", to: {"layers.{i + 2}.weight": [1]}}]',
    "text-order": "rules: [{from: [e.0, e.1, e.10, e.2], steps: [{stack: {dim: 0}}], "
    "to: {b: [4, 1]}}]",
    "negative-index": 'index: {i: 3}\nrules: [{from: "a.{i}", to: {"up.{1 - i}": [1]}}]',
    "out-of-scope": "scope: [encoder.]\nrules: [{from: decoder.x, to: {b: [1]}}]",
    "alias": "alias: [{name: head, of: embeddings, because: tied}]",
    "allow-nan": "allow_nan: [c]",
    "expect": "drop: [{name: head, expect: {equals: embed}, because: tied}]",
    "range": 'index: {i: 10 ** 9}\nrules: [{from: "a.{i}", to: {"b.{i}": [1]}}]',
    "shape": "rules: [{from: a, steps: [{chunk: {dim: 0, chunks: 3}}], "
    "to: {q: [8, 4], k: [2, 4], v: [2, 4]}}]",
    "idle-step": "rules: [{from: a, steps: [transpose, transpose], to: {b: [2, 3]}}]",
    "require": "dims: {heads: 3}\nrequire: [{that: 8 % heads == 0, because: equal slices}]",
    "derived": "derived: {n: 1 - 2}\nrules: [{from: a, to: {b: [n]}}]",
    "convention": "conventions: {norm: layer_norm}",
    "usage": "dims: {n: 1}\nrules: [{from: a, to: {b: [n]}}]\n"
    "variants: {v: {a: {dims: {n: 2}}}, w: {b: {dims: {n: 3}}}}",
}
BUNDLE = """
format: 1
bundle: two
title: two members
sources: {one: {file: one.safetensors}, other: {file: other.safetensors}}
members: {one: {source: one, rules: tiny.yaml}, other: {source: other, MODEL}}
agree: [{that: CONDITION, because: they are one}]
"""
GOOD = "rules: tiny.yaml"
BUNDLES = {
    "unknown-model": ("model: brt", "one.n == other.n"),
    "unknown-member": (GOOD, "one.n == third.n"),
    "unknown-fact": (GOOD, "one.n == other.m"),
    "source": ("source: one, rules: tiny.yaml", "one.n == other.n"),
    "agree": ("rules: tiny.yaml, dims: {n: 2}", "one.n == other.n"),
}


def listed() -> Iterator[str]:
    """Yield the codes in the first column of the page's tables."""
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("| `"):
            yield from re.findall(r"`([a-z-]+)`", line.split("|")[1])


def written() -> set[str]:
    """Return the codes that the modules of the rule language and of bundles give findings."""
    files = [*(ROOT / "converter" / "rules").glob("*.py"), ROOT / "converter/bundle_members.py"]
    whole = "\n".join(path.read_text("utf-8") for path in files)
    calls = r"(?:Finding|note|unknown|_unknown|_names_nothing|_clash|code=)\(?\s*\"([a-z-]+)\""
    return set(re.findall(calls, whole)) - {"more"}


def found(path: Path) -> set[str]:
    return {finding.code for finding in api.lint(path)}


def test_the_page_lists_each_code_once() -> None:
    codes = list(listed())
    assert len(codes) == len(set(codes))
    assert set(codes) == EXAMPLES.keys() | BUNDLES.keys()


def test_the_page_lists_every_code_that_is_written_anywhere() -> None:
    codes = written()
    assert len(codes) > 25
    assert codes <= set(listed())


@pytest.mark.parametrize("code", EXAMPLES)
def test_a_rule_file_with_that_fault_gets_that_finding(code: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(text(EXAMPLES[code]))
    assert found(path) == {code}


@pytest.mark.parametrize("code", BUNDLES)
def test_a_bundle_with_that_fault_gets_that_finding(code: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(text("dims: {n: 1}\nrules: [{from: a, to: {b: [n]}}]"))
    model, condition = BUNDLES[code]
    bundle = BUNDLE.replace("MODEL", model).replace("CONDITION", condition)
    if model.startswith("source"):
        bundle = bundle.replace("source: other, source", "source")
    (tmp_path / "bundle.yaml").write_text(bundle)
    assert found(tmp_path / "bundle.yaml") == {code}


def test_outputs_on_the_page_are_real() -> None:
    page = PAGE.read_text("utf-8")
    bug = ROOT / "tests" / "corpus" / "experts-in-the-order-of-text" / "bug.yaml"
    (finding,) = api.lint(bug)
    assert finding.render().partition(": ")[2] in page
    notes = api.linted(ROOT / "rules" / "bigvgan.yaml").notes
    for note in notes[:2]:
        assert f"  note: rules/bigvgan.yaml:{note.where.rpartition(':')[2]}: {note.what}" in page
        assert note.tensor in page
