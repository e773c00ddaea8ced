from collections.abc import Mapping

import pytest
from tiny_rules import finding_of

from converter.errors import RuleError
from converter.rules.expression import Value
from converter.rules.template import parse

VALUES: Mapping[str, Value] = {"i": 10, "n": 7, "count": 4, "r": [1, 2]}
TEXTS = {"p": "q_proj", "root": ""}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("norm.weight", "norm.weight"),
        ("layers.{i}.weight", "layers.10.weight"),
        ("layers.{ i }.weight", "layers.10.weight"),
        ("up.{count - 1 - r[0]}.conv", "up.2.conv"),
        ("stages.{n // 3}.blocks.{n % 3}", "stages.2.blocks.1"),
        ("{i}{n}", "107"),
        ("{root}wte.{p}", "wte.q_proj"),
        ("{ p }", "q_proj"),
        ("{0}", "0"),
        ("%s.{i}.100%.{p}", "%s.10.100%.q_proj"),
    ],
)
def test_a_placeholder_is_filled_with_a_number_or_a_text(text: str, name: str) -> None:
    assert parse(text).fill(VALUES, TEXTS) == name


def test_a_template_knows_the_names_that_it_mentions() -> None:
    assert parse("{root}h.{count - 1 - i}.{p}").names == {"root", "count", "i", "p"}


@pytest.mark.parametrize(
    "text",
    ["", "a b", "a\tb", "a\n", "h.*.w", "h.**", "{i", "i}", "{{i}}", "a.{i}}.b", "a.{b{i}}"],
)
def test_stray_braces_blanks_and_wildcards_are_no_name(text: str) -> None:
    with pytest.raises(RuleError, match="is not a name"):
        parse(text)


def test_a_wildcard_is_refused_with_where_one_may_stand() -> None:
    with pytest.raises(RuleError) as caught:
        parse("h.*.weight")
    assert "a final ** of a drop with a count" in (finding_of(caught.value).hint or "")


@pytest.mark.parametrize("text", ["a.{}", "a.{i +}", "a.{p.q.r}", "a.{i:02d}", "a.{'x'}"])
def test_a_placeholder_that_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(RuleError, match="is not an integer expression"):
        parse(text)


def test_a_negative_number_is_no_part_of_a_name() -> None:
    with pytest.raises(RuleError, match=r"the placeholder \{n - 8\} of 'a.\{n - 8\}' is negative"):
        parse("a.{n - 8}").fill(VALUES, TEXTS)


@pytest.mark.parametrize("text", ["a.{e}", "a.{p + 1}"])
def test_a_placeholder_without_a_value_is_refused(text: str) -> None:
    with pytest.raises(RuleError, match="no dim, derived name or index"):
        parse(text).fill(VALUES, TEXTS)


def test_a_list_is_no_part_of_a_name() -> None:
    with pytest.raises(RuleError, match="'r' is a list, not a number"):
        parse("a.{r}").fill(VALUES, TEXTS)


def test_a_name_longer_than_any_is_refused_in_a_short_message() -> None:
    assert parse("x" * 2000).text == "x" * 2000
    with pytest.raises(RuleError, match="too long a name") as caught:
        parse("x" * 2001)
    assert len(str(caught.value)) < 300
