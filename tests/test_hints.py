import pytest

from converter.hints import neighbour_hints, option_hint

BARE = ("blocks.0.attention.weight", "blocks.1.attention.weight", "norm.weight")


def named(prefix: str) -> list[str]:
    return [prefix + name for name in BARE]


@pytest.mark.parametrize(
    ("expected", "found", "scope", "source_prefix", "hint"),
    [
        ("", "net.", "", "", "the names of the source begin with 'net.': add --source-prefix net."),
        (
            "m.",
            "net.m.",
            "m.",
            "",
            "the names of the source begin with 'net.': add --source-prefix net.",
        ),
        ("m.", "", "m.", "", "the names of the source are bare, without 'm.': add --scope ''"),
        ("m.", "n.", "m.", "", "the names of the source begin with 'n.', not 'm.': add --scope n."),
        (
            "net.m.",
            "m.",
            "m.",
            "net.",
            "the names fit without 'net.': leave --source-prefix out",
        ),
        (
            "net.m.",
            "x.m.",
            "m.",
            "net.",
            "the names of the source begin with 'x.': add --source-prefix x.",
        ),
        ("", "", "", "", None),
    ],
)
def test_the_option_that_would_make_names_fit_is_named(
    expected: str, found: str, scope: str, source_prefix: str, hint: str | None
) -> None:
    wanted, there = named(expected), named(found)
    assert option_hint(wanted, there, scope=scope, source_prefix=source_prefix) == hint


def test_names_of_another_model_get_no_option() -> None:
    assert option_hint(BARE, ["x.y", "z"], scope="m.", source_prefix="") is None


def test_a_prefix_that_fits_few_names_is_not_named() -> None:
    assert option_hint(BARE, ["other.norm.weight", "x"], scope="", source_prefix="") is None


def test_a_missing_number_is_told_what_the_source_has_instead() -> None:
    expected = [f"a.{i}.w" for i in range(12)]
    hints = neighbour_hints(expected, ["a.5.w"], ["a.12.w", "a.13.w"])
    assert hints["a.5.w"] == "the source has 'a.{12..13}.w', which no rule names"
    assert hints["a.13.w"] == "the rules name 'a.{0..11}.w': set the dim if the model has more"


def test_a_number_padded_with_zeros_is_told_how_it_is_written() -> None:
    hints = neighbour_hints(["a.0.w", "a.1.w"], ["a.1.w"], ["a.01.w"])
    assert hints["a.01.w"] == "the rules name 'a.{0..1}.w', without leading zeros"
    assert hints["a.1.w"] == "the source has 'a.01.w', which no rule names"


def test_a_word_spelled_otherwise_is_told_the_nearest() -> None:
    hints = neighbour_hints(["norm.weight"], ["norm.weight"], ["norm.weigth"])
    assert hints == {
        "norm.weight": "the source has 'norm.weigth', which no rule names",
        "norm.weigth": "the rules name 'norm.weight'",
    }


def test_what_is_nearer_to_another_missing_name_is_no_hint() -> None:
    missing = ["layer.3.attention.key.weight", "layer.5.output.dense.weight"]
    hints = neighbour_hints(missing, missing, ["layer.5.output.dense.weights"])
    assert hints == {
        "layer.5.output.dense.weight": "the source has 'layer.5.output.dense.weights', "
        "which no rule names",
        "layer.5.output.dense.weights": "the rules name 'layer.5.output.dense.weight'",
    }


def test_names_that_are_alike_in_nothing_get_no_hint() -> None:
    assert neighbour_hints(["norm.weight"], ["norm.weight"], ["x"]) == {}


def test_many_patterns_are_not_all_shown() -> None:
    stray = [f"a.{i}.b.{i}" for i in range(5)]
    hint = neighbour_hints(["a.7.b.8"], ["a.7.b.8"], stray)["a.7.b.8"]
    assert hint == "the source has 'a.0.b.0', 'a.1.b.1', 'a.2.b.2' and others, which no rule names"


def test_likeness_is_not_sought_among_thousands_of_strangers() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    missing = [f"{a}{b}.weight" for a in letters for b in letters]
    assert neighbour_hints(missing, missing, [f"{name}s" for name in missing]) == {}
