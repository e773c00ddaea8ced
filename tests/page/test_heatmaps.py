import itertools

import pytest
from pages import layered, stats, tensor

from converter.manifest import Statistics
from converter.page.heatmaps import LEVELS, Heatmap, heatmaps_of, left_out, number, palette
from converter.page.stacks import Stack, stacks_of


def stack_of(*each: Statistics | None) -> Stack:
    tensors = [
        tensor(f"layers.{i}.w", 4, 4, statistics=s) for i, s in enumerate(each) if s is not None
    ]
    return stacks_of(tensors)[0][0]


def levels(heatmap: Heatmap) -> list[int | None]:
    return [cell.level for row in heatmap.rows for cell in row.cells]


def test_there_is_a_heatmap_for_each_measure_with_a_cell_for_each_tensor() -> None:
    (stack,), _ = stacks_of(layered(6))
    maps = heatmaps_of(stack)
    assert [m.measure.key for m in maps] == ["std", "mean", "max", "peak"]
    for heatmap in maps:
        assert [row.label for row in heatmap.rows] == list(stack.kinds)
        assert [len(row.cells) for row in heatmap.rows] == [6] * 5
        assert len({cell.x for row in heatmap.rows for cell in row.cells}) == 6


def test_colours_run_from_the_smallest_to_the_largest() -> None:
    std, mean, *_ = heatmaps_of(stack_of(*(stats(0.01 * (i - 1), 0.1**i) for i in range(3))))
    assert levels(std) == [LEVELS - 1, round((LEVELS - 1) / 2), 0]
    assert [std.low, std.high] == pytest.approx([0.01, 1])
    assert levels(mean)[0] == 0
    assert levels(mean)[-1] == LEVELS - 1
    assert (mean.low, mean.high) == (-0.01, 0.01)


def test_what_has_no_spread_has_no_colour() -> None:
    std, *_ = heatmaps_of(stack_of(stats(std=0), stats(std=0.1), stats(std=0.2)))
    assert levels(std)[0] is None
    assert None not in levels(std)[1:]


def test_values_that_are_all_alike_are_drawn_too() -> None:
    for heatmap in heatmaps_of(stack_of(*[stats(0, 0)] * 3)):
        assert len(levels(heatmap)) == 3


def test_a_stack_without_statistics_has_no_heatmaps() -> None:
    bare = [tensor(f"layers.{i}.mask", 4) for i in range(2)]
    stack = stacks_of(bare)[0][0]
    object.__setattr__(bare[0], "stats", None)
    object.__setattr__(bare[1], "stats", None)
    assert heatmaps_of(stack) == []


def test_a_cell_says_its_layer_and_value_and_the_map_its_extremes() -> None:
    std, *_ = heatmaps_of(stack_of(stats(std=0.5), stats(std=0.25)))
    assert [cell.title for cell in std.rows[0].cells] == ["0: 0.5", "1: 0.25"]
    assert std.about == (
        "Standard deviation of 2 tensors, by kind and layer: lowest 0.25 (w, layer 1), "
        "highest 0.5 (w, layer 0)."
    )


def test_very_many_layers_and_kinds_are_cut_and_the_rest_is_told() -> None:
    (stack,), _ = stacks_of(tensor(f"layers.{i}.w", 4, 4) for i in range(300))
    heatmap, *_ = heatmaps_of(stack)
    assert len(heatmap.rows[0].cells) == 240
    assert left_out(stack) == "60 more layers"
    (stack,), _ = stacks_of(tensor(f"layers.{i}.k{k}", 4, 4) for i in range(2) for k in range(101))
    assert len(heatmaps_of(stack)[0].rows) == 100
    assert left_out(stack) == "1 more kinds"


def test_labels_of_layers_do_not_run_into_each_other() -> None:
    (stack,), _ = stacks_of(tensor(f"layers.{i}.w", 4, 4) for i in range(120))
    heatmap, *_ = heatmaps_of(stack)
    places = [x for x, _ in heatmap.ticks]
    assert len(places) > 3
    assert min(b - a for a, b in itertools.pairwise(places)) >= 22


def test_palettes_have_a_colour_for_each_level() -> None:
    assert len(set(palette(diverging=True))) == len(set(palette(diverging=False))) == LEVELS


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.02341, "0.0234"), (1.5e-7, "1.5e-7"), (3e12, "3e12")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
