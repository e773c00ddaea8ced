"""The names of a port, mapped to those of a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from converter.compare_names import read_map, renamed
from converter.errors import UsageError


def test_names_are_mapped_one_by_one_or_with_their_numbers() -> None:
    names = ["h.0.out", "h.11.out", "lm", "output", "h.x.out"]
    mapping = {"h.{i}.out": "layers.{i}.output", "lm": "lm_head.output"}
    assert renamed(names, mapping) == {
        "layers.0.output": "h.0.out",
        "layers.11.output": "h.11.out",
        "lm_head.output": "lm",
        "output": "output",
        "h.x.out": "h.x.out",
    }


def test_the_same_number_may_stand_in_several_places() -> None:
    names = ["b.1.x.1", "b.1.x.2"]
    assert renamed(names, {"b.{i}.x.{i}": "{i}"}) == {"1": "b.1.x.1", "b.1.x.2": "b.1.x.2"}


def test_dots_and_stars_of_a_name_stand_for_themselves() -> None:
    assert renamed(["axb", "a.b"], {"a.b": "c"}) == {"axb": "axb", "c": "a.b"}


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"outputs": "x"}, "a tensor that the file does not have"),
        ({"h.{i}.output": "x.{j}"}, "{j} stands in the name here"),
        ({"h.{i}": "x"}, "gives two tensors one name"),
        ({"h.0": "h.1"}, "gives two tensors one name"),
    ],
)
def test_a_map_that_cannot_be_meant_is_refused(mapping: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        renamed(["h.0", "h.1", "h.0.output", "output"], mapping)
    assert said in raised.value.findings[0].what


def test_a_name_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as raised:
        renamed(["h.0.output"], {"h.0.outptu": "x"})
    assert raised.value.findings[0].hint == "did you mean 'h.0.output'?"


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_map_is_read_from_yaml_or_json(suffix: str, tmp_path: Path) -> None:
    mapping = {"h.{i}.out": "layers.{i}.output", "a#2": "b#2.output"}
    path = tmp_path / f"names.{suffix}"
    lines = "".join(f'"{theirs}": "{ours}"\n' for theirs, ours in mapping.items())
    path.write_text(json.dumps(mapping) if suffix == "json" else lines)
    assert read_map(path) == mapping


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.yaml", "- a\n"),
        ("names.yaml", "a: [b]\n"),
        ("names.yaml", "a: b\na: c\n"),
        ("names.yaml", "a: 1\n"),
        ("names.json", '{"a": "b", "a": "c"}'),
        ("names.json", "{"),
        ("names.json", "{}"),
        ("absent.yaml", None),
    ],
)
def test_what_is_no_map_is_refused(name: str, text: str | None, tmp_path: Path) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as raised:
        read_map(path)
    assert str(path) in (raised.value.findings[0].where or "")
