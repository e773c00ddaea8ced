from typing import Any

import pytest
from tiny_rules import finding_of, parsed, resolved

from converter.errors import PlanError, RuleError, UsageError
from converter.finding import Finding
from converter.rules.rule_file import Scope
from converter.rules.settings import choices

VARIANTS = """
    scope: m.
    dims: {layers: 2, hidden: 8, rates: [4, 2], nested: [[1, 3], [5]]}
    derived: {double: 2 * layers, both: [layers, double], total: sum(rates)}
    words: {g: weight_g, root: ""}
    variants:
      size:
        small: {}
        big: {dims: {layers: 4}}
        huge: {dims: {layers: 9, hidden: 64}}
      spelling:
        modern: {}
        legacy: {words: {g: gamma}}
        prefixed: {words: {g: gamma, root: "bert."}, scope: n.}
    """


def usage(body: str, **choices: Any) -> Finding:
    with pytest.raises(UsageError) as caught:
        resolved(body, **choices)
    return finding_of(caught.value)


def broken(body: str, **choices: Any) -> tuple[Finding, ...]:
    with pytest.raises(PlanError) as caught:
        resolved(body, **choices)
    return caught.value.findings


def test_the_variant_that_overrides_nothing_holds_unless_another_is_chosen() -> None:
    settings = resolved(VARIANTS)
    assert settings.variant == ("small", "modern")
    assert settings.dims["layers"] == 2
    assert settings.words == {"g": "weight_g", "root": ""}


def test_variants_of_several_axes_combine_in_any_order() -> None:
    settings = resolved(VARIANTS, variant=["prefixed", "big"])
    assert settings.variant == ("big", "prefixed")
    assert settings.dims["layers"] == 4
    assert settings.words == {"g": "gamma", "root": "bert."}
    assert settings.scope.prefix == "n."


def test_the_empty_variant_may_be_named() -> None:
    assert resolved(VARIANTS, variant=["modern", "small"]) == resolved(VARIANTS)


def test_derived_values_follow_from_the_dims_of_the_variant() -> None:
    settings = resolved(VARIANTS, variant=["big"])
    assert (settings.dims["double"], settings.dims["both"]) == (8, [4, 8])


def test_dims_that_are_set_come_after_variants() -> None:
    settings = resolved(VARIANTS, variant=["big"], dims={"layers": 5, "rates": [7]})
    assert (settings.dims["layers"], settings.dims["double"], settings.dims["total"]) == (5, 10, 7)


def test_whose_dims_they_are_is_remembered() -> None:
    assert resolved(VARIANTS, variant=["big"]).own_dims
    assert not resolved(VARIANTS, dims={"layers": 2}).own_dims


def test_an_unknown_variant_is_refused_with_the_nearest() -> None:
    finding = usage(VARIANTS, variant=["legasy"])
    assert finding.what == "tiny has no variant 'legasy'"
    assert finding.expected == "one of small, big, huge, modern, legacy, prefixed"
    assert finding.hint == "did you mean 'legacy'?"


def test_two_variants_of_one_axis_are_refused() -> None:
    finding = usage(VARIANTS, variant=["big", "huge"])
    assert finding.what == "'big' and 'huge' are both of the axis 'size'"


def test_an_axis_without_an_empty_variant_wants_a_choice() -> None:
    finding = usage("dims: {n: 1}\nvariants: {size: {a: {dims: {n: 2}}, b: {dims: {n: 3}}}}")
    assert finding.what == "tiny needs a variant of the axis 'size'"
    assert finding.expected == "one of a, b"
    assert finding.hint == "choose with --variant"


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("dims: {n: 2}", "dims: {n: 2}", "n"),
        ("words: {w: x}", "words: {w: y}", "w"),
        ("scope: x.", "scope: y.", "the scope"),
    ],
)
def test_variants_that_set_the_same_thing_do_not_combine(
    first: str, second: str, what: str
) -> None:
    body = f"""
        dims: {{n: 1}}
        words: {{w: v}}
        variants: {{x: {{plain: {{}}, a: {{{first}}}}}, y: {{none: {{}}, b: {{{second}}}}}}}
        """
    assert usage(body, variant=["a", "b"]).what == f"the variants 'a' and 'b' both set {what}"


def test_the_choices_use_every_variant_with_the_defaults_of_other_axes() -> None:
    rule_file = parsed("""
        dims: {n: 1}
        variants:
          size: {big: {dims: {n: 2}}, small: {}}
          other: {dims: {dims: {n: 3}}, none: {}}
        """)
    assert list(choices(rule_file)) == [("small", "none"), ("big", "none"), ("small", "dims")]


def test_a_file_without_variants_has_one_choice() -> None:
    assert list(choices(parsed("dims: {n: 1}"))) == [()]


@pytest.mark.parametrize(
    ("dims", "what", "hint"),
    [
        ({"layer": 3}, "tiny has no dim 'layer'", "did you mean 'layers'?"),
        (
            {"double": 3},
            "tiny has no dim 'double'",
            "'double' is derived from other dims; set those",
        ),
        ({"layers": [3]}, "the dim 'layers' is of another kind", None),
        ({"rates": 3}, "the dim 'rates' is of another kind", None),
        ({"nested": [1, 3]}, "the dim 'nested' is of another kind", None),
        ({"layers": -1}, "a dim is a whole number, or a list of them", None),
        ({"layers": True}, "a dim is a whole number, or a list of them", None),
        ({"rates": [1, 2.0]}, "a dim is a whole number, or a list of them", None),
    ],
)
def test_a_dim_that_cannot_be_set_is_refused(dims: Any, what: str, hint: str | None) -> None:
    finding = usage(VARIANTS, dims=dims)
    assert finding.what == what
    assert finding.hint == hint


REQUIRING = """
    dims: {hidden: 8, heads: 2, rates: [4, 2]}
    derived: {head: hidden // heads}
    index: {i: len(rates)}
    require:
      - that: heads > 0 and hidden % heads == 0
        because: heads are equal slices of hidden
      - that: rates[i] % 2 == 0
        because: every rate is even
      - that: head >= 2
        because: rope turns pairs
    """


def test_dims_that_meet_every_requirement_are_taken() -> None:
    assert resolved(REQUIRING, dims={"hidden": 12, "heads": 3}).dims["head"] == 4


def test_all_requirements_that_the_dims_break_are_listed() -> None:
    first, second, third = broken(REQUIRING, dims={"hidden": 7, "heads": 4, "rates": [4, 6, 3]})
    assert first.what == "the dims break a requirement: heads are equal slices of hidden"
    assert first.where == "tiny.yaml:5"
    assert first.expected == "heads > 0 and hidden % heads == 0"
    assert first.got == "heads = 4, hidden = 7"
    assert first.hint == "set dims that fit with --set or --dims"
    assert second.got is not None
    assert "i = 2" in second.got
    assert third.what == "the dims break a requirement: rope turns pairs"


def test_what_a_broken_requirement_makes_underivable_is_not_said_instead() -> None:
    (finding,) = broken(REQUIRING, dims={"heads": 0})
    assert finding.got == "heads = 0, hidden = 8"


def test_a_requirement_without_a_value_is_located() -> None:
    body = "dims: {n: 1}\nrequire:\n  - {that: 8 % n == 0, because: it is so}"
    (finding,) = broken(body, dims={"n": 0})
    assert finding.what == "'8 % n == 0' has no value: integer modulo by zero"
    assert finding.where == "tiny.yaml:3"


def test_a_derived_value_that_does_not_exist_is_the_fault_of_whose_dims_they_are() -> None:
    body = "dims: {n: 0}\nderived:\n  a: 8\n  b: a // n"
    with pytest.raises(RuleError) as own:
        resolved(body)
    assert finding_of(own.value).where == "tiny.yaml:4"
    with pytest.raises(PlanError, match="has no value: integer division or modulo by zero"):
        resolved(body, dims={"n": 0})


def test_audio_may_follow_from_the_dims() -> None:
    body = "dims: {mels: 80, hop: 256}\naudio: {n_mels: mels, pad_samples: (1024 - hop) // 2}"
    assert resolved(body).audio == {"n_mels": 80, "pad_samples": 384}
    assert resolved(body, dims={"hop": 512}).audio == {"n_mels": 80, "pad_samples": 256}


def test_audio_without_a_value_is_refused() -> None:
    body = "dims: {hop: 1}\naudio: {n_fft: 1024 // hop}"
    with pytest.raises(PlanError, match="has no value"):
        resolved(body, dims={"hop": 0})


@pytest.mark.parametrize(
    ("scope", "prefix", "inside", "outside"),
    [
        ("", "", ["a", "net.a"], []),
        ("scope: net.", "net.", ["net.a"], ["a", "netx.a"]),
        ("scope: [a., b.]", "", ["a.x", "b.x"], ["c.x"]),
        ("scope: [a.]", "", ["a.x"], ["b.x"]),
        ("scope: {except: [a., b.]}", "", ["c.x", "x"], ["a.x", "b.x"]),
    ],
)
def test_a_scope_is_a_prefix_or_several_or_all_but_some(
    scope: str, prefix: str, inside: list[str], outside: list[str]
) -> None:
    found = resolved(scope or "dims: {n: 1}").scope
    assert found.prefix == prefix
    assert found.held(inside + outside) == {*inside}
    behind = [f"all.{name}" for name in inside]
    assert found.held([*behind, *outside, "all"], behind="all.") == {*behind}


def test_a_scope_that_is_given_replaces_that_of_the_file_and_of_variants() -> None:
    assert resolved(VARIANTS, scope="", variant=["prefixed"]).scope == Scope.of_prefix("")
    assert resolved(VARIANTS, scope="x.").scope.prefix == "x."


def test_the_options_that_a_manifest_must_tell_are_kept() -> None:
    assert resolved(VARIANTS).options == {}
    assert resolved(VARIANTS, scope="", source_prefix="net.").options == {
        "scope": "",
        "source_prefix": "net.",
    }
