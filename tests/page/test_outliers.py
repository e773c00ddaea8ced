import math

from pages import stats, tensor

from converter.manifest import Statistics
from converter.page.outliers import outliers_of
from converter.page.stacks import stacks_of


def found(*each: Statistics) -> list[tuple[str, str]]:
    tensors = [tensor(f"layers.{i}.weight", 8, 8, statistics=s) for i, s in enumerate(each)]
    stacks, _ = stacks_of(tensors)
    return [(outlier.name, outlier.what) for outlier in outliers_of(stacks, tensors)]


def test_layers_alike_do_not_stand_out() -> None:
    assert found(*(stats(std=0.02 * 1.3**i) for i in range(5))) == []


def test_a_std_far_from_the_median_stands_out_and_the_farthest_is_first() -> None:
    stds = (0.02, 0.02, 0.1, 0.02, 0.001)
    assert found(*(stats(std=std) for std in stds)) == [
        ("layers.4.weight", "std 0.001 is 1/20 of the median of its kind, 0.02"),
        ("layers.2.weight", "std 0.1 is 5 of the median of its kind, 0.02"),
    ]


def test_a_tensor_of_equal_values_stands_out_only_where_others_are_not() -> None:
    assert found(stats(std=0), *[stats()] * 4) == [
        ("layers.0.weight", "all values are equal; in other layers they are not")
    ]
    assert found(*[stats(std=0)] * 5) == []


def test_few_layers_have_no_usual_std() -> None:
    assert found(stats(std=0.01), stats(std=1)) == []


def test_values_that_are_not_finite_stand_out_first_of_all() -> None:
    (first, *_) = found(stats(std=0), stats(nonfinite=2), *[stats()] * 4)
    assert first == ("layers.1.weight", "2 of 64 values are not finite")


def test_the_weight_of_what_is_not_finite_is_beyond_any_other() -> None:
    tensors = [tensor("a", 4, statistics=stats(nonfinite=1))]
    assert outliers_of((), tensors)[0].weight == math.inf
