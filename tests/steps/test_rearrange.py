import itertools

import numpy as np
import pytest

from converter.errors import RuleError, StepError
from converter.spec import TensorSpec
from converter.steps.axes import MAX_AXES
from converter.steps.rearrange import Rearrange


def shape(step: Rearrange, *sizes: int) -> tuple[int, ...]:
    (spec,) = step.infer((TensorSpec("F32", sizes),))
    return spec.shape


@pytest.mark.parametrize(
    ("pattern", "sizes", "source"),
    [
        ("a b c -> c a b", {}, (2, 3, 4)),
        ("(a b) c -> a b c", {"a": 2}, (6, 4)),
        ("(a b) c -> b (c a)", {"b": 3}, (6, 4)),
        ("a 1 b -> b a", {}, (2, 1, 3)),
        ("a b -> a 1 b", {}, (2, 3)),
        ("(a b c) -> (c b a)", {"a": 2, "b": 3}, (24,)),
    ],
)
def test_elements_go_where_the_names_of_their_axes_go(
    pattern: str, sizes: dict[str, int], source: tuple[int, ...]
) -> None:
    """By the definition of the notation, element by element."""
    tensor = np.arange(np.prod(source)).reshape(source)
    step = Rearrange(pattern, tuple(sizes.items()))
    (made,) = step.apply([tensor])
    sides = [side.replace("(", " ( ").replace(")", " ) ").split() for side in pattern.split("->")]
    known = dict(zip("abc", _axis_lengths(sides[0], source, sizes), strict=False))
    for places in itertools.product(*(range(known[axis]) for axis in known)):
        at = dict(zip(known, places, strict=True))
        before, after = (_position(side, known, at) for side in sides)
        assert made[after] == tensor[before]
    assert made.size == tensor.size


def _axis_lengths(side: list[str], source: tuple[int, ...], stated: dict[str, int]) -> list[int]:
    lengths, dims, inside = dict(stated), iter(source), []
    group: list[str] | None = None
    for token in side:
        if token == "(":
            group = []
        elif token == ")":
            assert group is not None
            left = next(dims)
            for axis in group:
                left //= stated.get(axis, 1)
            lengths.update({axis: left for axis in group if axis not in stated})
            group = None
        elif group is not None:
            group.append(token)
        else:
            inside.append((token, next(dims)))
    lengths.update(inside)
    return [lengths[axis] for axis in "abc" if axis in lengths]


def _position(side: list[str], known: dict[str, int], at: dict[str, int]) -> tuple[int, ...]:
    place, total, inside = [], 0, False
    for token in side:
        if token in "()":
            inside = token == "("
            if not inside:
                place.append(total)
            total = 0
        elif inside:
            total = total * known[token] + at[token]
        else:
            place.append(0 if token == "1" else at[token])
    return tuple(place)


def test_dots_stand_for_any_number_of_dims() -> None:
    step = Rearrange("(a b) ... -> b a ...", (("a", 2),))
    assert shape(step, 6) == (3, 2)
    assert shape(step, 6, 4) == (3, 2, 4)
    assert shape(step, 6, 4, 5) == (3, 2, 4, 5)
    assert shape(Rearrange("... a -> a ..."), 4, 5, 6) == (6, 4, 5)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a b", "it has no ->"),
        ("a b -> a", "b stands on one side only"),
        ("a -> a c", "c stands on one side only"),
        ("a a -> a", "an axis stands twice"),
        ("(a (b c)) -> a b c", "do not pair, or are nested"),
        ("(a b -> a b", "do not pair"),
        ("a) b -> a b", "do not pair"),
        ("... a -> a", "... stands on one side only"),
        ("... a ... -> a ... ...", "... stands once on a side"),
        ("(... a) -> ... a", "... stands in parentheses"),
        ("(1 a) -> a", "1 stands in parentheses"),
        ("a 2 -> a", "2 is no axis"),
        ("a-b -> b", "-b is no axis"),
        ("a -> a -> a", "-> once in all"),
        (" ".join(f"a{n}" for n in range(MAX_AXES + 1)), "it has no ->"),
    ],
)
def test_what_is_no_pattern_is_refused_with_why(pattern: str, why: str) -> None:
    with pytest.raises(RuleError) as caught:
        Rearrange(pattern)
    assert why in caught.value.findings[0].what


def test_more_axes_than_arrays_have_dims_are_refused() -> None:
    axes = " ".join(f"a{number}" for number in range(MAX_AXES + 1))
    with pytest.raises(RuleError, match="more than 32 axes"):
        Rearrange(f"{axes} -> {axes}")


def test_the_open_sizes_of_one_dim_are_named_before_a_tensor_is_seen() -> None:
    with pytest.raises(RuleError, match="the sizes of a and c are open") as caught:
        Rearrange("(a b c) -> a b c", (("b", 2),))
    assert caught.value.findings[0].hint == "add sizes: {a: …}"


@pytest.mark.parametrize("sizes", [(("d", 2),), (("a", 0),), (("a", -1),)])
def test_sizes_below_1_and_of_no_axis_are_refused(sizes: tuple[tuple[str, int], ...]) -> None:
    with pytest.raises(RuleError, match=r"no axis 'd'|no size of the axis 'a'"):
        Rearrange("a b -> b a", sizes)


@pytest.mark.parametrize(
    ("pattern", "sizes", "source", "what"),
    [
        ("(a b) -> a b", {"a": 4}, (6,), "not made up of its axes"),
        ("(a b) -> a b", {"a": 2, "b": 2}, (6,), "not made up of its axes"),
        ("a b -> b a", {"a": 3}, (2, 3), "not made up of its axes"),
        ("a 1 -> a", {}, (2, 3), "not made up of its axes"),
        ("a b -> b a", {}, (2, 3, 4), "another number of dims"),
        ("a b c ... -> c b a ...", {}, (2, 3), "another number of dims"),
    ],
)
def test_a_tensor_that_is_not_so_made_up_is_refused(
    pattern: str, sizes: dict[str, int], source: tuple[int, ...], what: str
) -> None:
    with pytest.raises(StepError, match=what):
        shape(Rearrange(pattern, tuple(sizes.items())), *source)


def test_declared_shapes_are_worked_back_where_the_sizes_tell_them() -> None:
    step = Rearrange("(a b) c -> a (b c)", (("a", 2), ("b", 3)))
    assert step.preimage(((2, 12),)) == ((6, 4),)
    with pytest.raises(StepError):
        step.preimage(((2, 13),))
    assert Rearrange("(a b) c -> a (b c)", (("a", 2),)).preimage(((2, 12),)) is None


def test_rows_may_be_given_a_few_at_a_time_where_they_stay_what_they_are() -> None:
    assert Rearrange("a (b c) -> a c b", (("b", 2),)).keeps_rows
    assert not Rearrange("a b -> a b", (("a", 2),)).keeps_rows, "2 is the size of all rows"
    assert not Rearrange("... a -> ... a").keeps_rows, "there may be no other dim than a"
    assert not Rearrange("a b -> b a").keeps_rows


def test_an_empty_axis_comes_back_where_that_can_be_said() -> None:
    spec = TensorSpec("F32", (0, 4))
    back = Rearrange("(a b) c -> a (b c)", (("a", 2),)).inverse((spec,))
    assert back is not None
    assert back.infer((TensorSpec("F32", (2, 0)),)) == (spec,)
    assert Rearrange("a b -> (a b)").inverse((TensorSpec("F32", (0, 0)),)) is None


def test_long_pieces_are_moved_without_being_looked_at() -> None:
    step = Rearrange("(a b) c -> (b a) c", (("a", 2),))
    runs = step.runs((TensorSpec("F32", (6, 1000)),))
    assert runs is not None
    assert [run.begin for run in runs[0]] == [0, 3000, 1000, 4000, 2000, 5000]
    assert step.runs((TensorSpec("F32", (1 << 14, 1)),)) is None, "too many to be quicker"
