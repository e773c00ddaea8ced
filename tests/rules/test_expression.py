import ast
import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_rules import finding_of, findings_of

from converter.errors import RuleError
from converter.finding import Finding
from converter.rules.expression import MAX_LENGTH, Value, parse

VALUES: Mapping[str, Value] = {"n": 12, "one": 1, "zero": 0, "r": [8, 4, 2], "d": [[1, 3], [5]]}


def refusal(text: str) -> Finding:
    with pytest.raises(RuleError) as caught:
        parse(text).evaluate(VALUES)
    return finding_of(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        ("n", 12),
        (" n ", 12),
        ("2 + 3 * n", 38),
        ("(2 + 3) * n", 60),
        ("n - 13", -1),
        ("-n", -12),
        ("-7 // 2", -4),
        ("-7 % 3", 2),
        ("2 ** 3 ** 2", 512),
        ("256 * ((8 * 512 // 3 + 255) // 256)", 1536),
        ("r[2]", 2),
        ("d[0][1]", 3),
        ("r[n % 2]", 8),
        ("len(r)", 3),
        ("len(d[0])", 2),
        ("sum(r)", 14),
        ("prod(r)", 64),
        ("prod(d[1])", 5),
        ("min(r)", 2),
        ("max(n, 3, 20)", 20),
        ("n == 12", 1),
        ("n != 12", 0),
        ("0 < n <= 12", 1),
        ("0 < n < 12", 0),
        ("d[0] == d[0]", 1),
        ("3 and 5", 1),
        ("zero or one", 1),
        ("not zero", 1),
        ("(n > 3) * 5", 5),
        ("zero > 0 and n % zero == 0", 0),
        ("zero == 0 or n % zero == 0", 1),
        ("2 ** 62", 1 << 62),
    ],
)
def test_an_expression_has_the_value_that_it_has_in_python(text: str, expected: int) -> None:
    value = parse(text).evaluate(VALUES)
    assert value == expected
    assert type(value) is int


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1.5", "1e5", "0x10", "010", "1_000", "'n'", "True", "None", "n.real.imag"),
        *("1.and n", "n == 0.or 1", "1 .real", ".5"),
        *("n / 2", "~n", "+n", "n & 1", "n @ n", "n << 2", "n is n", "1 in r", "n := 1"),
        *("f(n)", "__import__(n)", "len()", "len(r, r)", "sum(r, 1)", "prod(x=r)", "min()"),
        *("n if n else 0", "lambda: n", "[n]", "(n, n)", "r[0:1]", "r[0, 1]", "[x for x in r]"),
        *("n n", "n +", "(n", "n)", "n; n", "n # comment", "n\nn", "ｎ", "{n}", "(" * 300 + "n"),
        "1" + " + 1" * MAX_LENGTH,
    ],
)
def test_whatever_else_python_could_do_is_no_expression(text: str) -> None:
    assert refusal(text).what.endswith("is not an integer expression")


def test_a_single_slash_is_refused_with_what_to_write() -> None:
    assert refusal("n / 2").hint == "write // for division"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("n // zero", "integer division or modulo by zero"),
        ("n % zero", "integer modulo by zero"),
        ("r[3]", "index 3 is outside a list of 3"),
        ("r[-1]", "index -1 is outside a list of 3"),
        ("n[0]", "a number is not a list"),
        ("r[r]", "a list is not a number"),
        ("r + 1", "a list is not a number"),
        ("-r", "a list is not a number"),
        ("not r", "a list is not a number"),
        ("r and n", "a list is not a number"),
        ("r < 3", "a list is not a number"),
        ("sum(d)", "a list is not a number"),
        ("len(n)", "a number is not a list"),
        ("min(n)", "a number is not a list"),
        ("min(r, n)", "a list is not a number"),
        ("2 ** 65", "the exponent 65 is not between 0 and 64"),
        ("2 ** -1", "the exponent -1 is not between 0 and 64"),
        ("2 ** 62 + 1", "the result does not fit in 62 bits"),
        ("n ** 64", "the result does not fit in 62 bits"),
    ],
)
def test_an_expression_without_a_value_says_why(text: str, why: str) -> None:
    assert refusal(text).what == f"{text!r} has no value: {why}"


def test_what_the_names_of_an_expression_stood_for_is_told() -> None:
    assert refusal("n // (one - 1)").got == "n = 12, one = 1"
    assert refusal("r * n % unknown").got == "n = 12, r = [8, 4, 2]"


def test_a_list_is_no_value_of_an_expression() -> None:
    assert refusal("d[0]").what == "'d[0]' is a list, not a number"


def test_a_number_beyond_62_bits_is_refused_however_it_came() -> None:
    assert refusal(str(1 << 70)).expected == "62 bits"


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    finding = refusal("2 * zeroo")
    assert finding.code == "unknown-name"
    assert finding.hint == "did you mean 'zero'?"


def test_an_expression_knows_the_names_that_it_mentions() -> None:
    assert parse("sum(r) + d[n][0] * (one < 2)").names == {"r", "d", "n", "one"}


def test_an_expression_as_long_as_can_be_is_evaluated_or_refused() -> None:
    assert parse("-" * (MAX_LENGTH - 1) + "1").evaluate({}) == -1


# Each generated expression is a pair: as a rule file says it, and as Python does.
Pair = tuple[str, str]


def _leaves() -> st.SearchStrategy[Pair]:
    numbers = st.integers(0, 20).map(str)
    names = st.sampled_from(["n", "one", "zero", "len(r)", "sum(r)", "prod(r)", "max(r)"])
    powers = st.tuples(st.integers(0, 9), st.integers(0, 3)).map(lambda p: f"({p[0]} ** {p[1]})")
    return st.one_of(numbers, names, powers).map(lambda text: (text, text))


def _grown(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def both(form: str) -> st.SearchStrategy[Pair]:
        pairs = st.tuples(inner, inner)
        return pairs.map(lambda p: (form.format(p[0][0], p[1][0]), form.format(p[0][1], p[1][1])))

    forms = ("({} + {})", "({} - {})", "({} * {})", "({} // {})", "({} % {})", "min({}, {})")
    comparisons = ("({} < {})", "({} <= {})", "({} == {})", "({} != {})", "({} > {})", "({} >= {})")
    return st.one_of(
        *(both(form) for form in (*forms, *comparisons)),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda p: (f"({p[0][0]} {p[1]} {p[2][0]})", f"bool({p[0][1]} {p[1]} {p[2][1]})")
        ),
        inner.map(lambda p: (f"(-{p[0]})", f"(-{p[1]})")),
        inner.map(lambda p: (f"(not {p[0]})", f"(not {p[1]})")),
        inner.map(lambda p: (f"r[{p[0]}]", f"at(r, {p[1]})")),
    )


def _at(items: list[int], position: int) -> int:
    return items[range(len(items))[position] if position >= 0 else len(items)]


@given(st.recursive(_leaves(), _grown, max_leaves=6))
def test_an_expression_agrees_with_python(pair: Pair) -> None:
    ours, theirs = pair
    functions = {"at": _at, "prod": math.prod}
    code = compile(ast.parse(theirs, mode="eval"), "generated", "eval")
    try:
        expected = int(eval(code, functions, dict(VALUES)))
    except (ZeroDivisionError, IndexError):
        with pytest.raises(RuleError, match="has no value"):
            parse(ours).evaluate(VALUES)
    else:
        assert parse(ours).evaluate(VALUES) == expected


@given(st.text(alphabet="nr0129 +-*/%()[],<>=!.andotlei", max_size=30))
def test_arbitrary_text_is_evaluated_or_refused_in_one_way(text: str) -> None:
    found = findings_of(RuleError, lambda: parse(text).evaluate(VALUES))
    assert all(finding.what for finding in found)


def test_a_product_ends_where_it_no_longer_fits() -> None:
    numbers: list[Value] = [1 << 62] * 100_000
    with pytest.raises(RuleError, match="does not fit"):
        parse("prod(r)").evaluate({"r": numbers})
    assert parse("prod(r)").evaluate({"r": [*numbers, 0]}) == 0


def test_the_weight_of_an_expression_grows_with_what_it_does() -> None:
    assert parse("7").weight == 1
    assert parse("n + 1").weight < parse("(n + 1) * (n - 1)").weight < parse("sum(r)").weight
