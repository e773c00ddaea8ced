"""What a failed plan says of variants: those with which the same source would fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiny_rules import misfits

from converter.hints import for_bundle

BODY = """
    dims: {width: 4, layers: 2, head: 0}
    index: {i: layers}
    words: {block: layers}
    variants:
      size:
        small: {}
        large: {dims: {width: 6, layers: 3}}
        other: {dims: {width: 8, layers: 3}}
      layout:
        saved: {}
        original: {words: {block: blocks}}
      heads:
        bare: {}
        headed: {dims: {head: 1}}
    rules:
      - {from: "{block}.{i}.weight", to: {"layers.{i}.weight": [width]}}
      - {from: head.weight, when: head == 1, to: {head.weight: [width]}}
    """
FITS = "every name and shape fits"


def hints(source: Mapping[str, int], body: str = BODY, **choices: Any) -> set[tuple[str, str]]:
    """Return the code and hint of all that does not fit, for names with their widths."""
    shapes = {name: [width] for name, width in source.items()}
    return {(found.code, str(found.hint)) for found in misfits(body, shapes, **choices)}


def blocks(word: str, count: int, width: int) -> dict[str, int]:
    return {f"{word}.{i}.weight": width for i in range(count)}


def test_a_source_of_another_size_is_told_its_variant_with_every_misfit() -> None:
    hint = f"with --variant large {FITS}"
    assert hints(blocks("layers", 3, 6)) == {("shape", hint), ("unexpected", hint)}
    assert hints(blocks("layers", 3, 6), variant=["other"]) == {("shape", hint)}


def test_a_source_that_is_the_default_is_told_to_choose_none() -> None:
    hint = f"with no --variant at all {FITS}"
    found = hints(blocks("layers", 2, 4), variant=["large", "headed"])
    assert found == {("shape", hint), ("missing", hint)}


def test_variants_of_several_axes_are_found_together() -> None:
    source = {**blocks("blocks", 3, 8), "head.weight": 8}
    hint = f"with --variant other,original,headed {FITS}"
    assert hints(source) == {("missing", hint)}
    assert {told for _, told in hints(source, variant=["original"])} == {hint}


def test_dims_of_the_callers_own_are_not_part_of_what_fits() -> None:
    found = hints(blocks("layers", 3, 6), variant=["large"], dims={"width": 5})
    assert found == {("shape", f"with --variant large {FITS}, without --set or --dims")}


def test_variants_that_fit_equally_are_all_named() -> None:
    same = BODY.replace("width: 8", "width: 6")
    found = {told for _, told in hints(blocks("layers", 3, 6), same)}
    assert found == {f"with --variant large or with --variant other {FITS}"}


def test_nothing_is_said_of_variants_where_none_fits_whole() -> None:
    large = blocks("layers", 3, 6)
    for source in ({**large, "layers.2.weight": 7}, {**large, "stray": 1}):
        found = hints(source)
        assert found
        assert not [told for _, told in found if FITS in told]


def test_a_variant_that_breaks_a_requirement_is_not_told() -> None:
    body = f"{BODY}require: [{{that: width < 6, because: it is small}}]\n"
    found = hints(blocks("layers", 3, 6), body)
    assert found
    assert not [told for _, told in found if FITS in told]


def test_a_bundle_is_told_in_its_own_words() -> None:
    ((_, told),) = hints(blocks("layers", 3, 6), variant=["other"])
    assert for_bundle(told, member="m", source="s") == (
        f"with the variant large in the bundle file {FITS}"
    )
