import re

from pages import layered, stats, tensor

from converter.page.plots import of_tensors, steps_figure


def test_statistics_have_their_figures_and_say_in_words_what_they_show() -> None:
    figures = of_tensors(layered(6), "x-")
    assert [figure.title for figure in figures] == [
        "Standard deviation",
        "Mean, in standard deviations",
        "Largest magnitude",
        "Values in a tensor",
    ]
    assert figures[0].about == "Standard deviation of 31 tensors; the median is 0.022."


def test_figures_are_drawings_alone_in_the_colours_of_the_page() -> None:
    for figure in of_tensors(layered(6), "x-"):
        assert figure.svg.startswith('<svg viewBox="')
        assert figure.svg.endswith("</svg>")
        for absent in ("<style", "<metadata", "<?xml", "<!--", "http", "#0"):
            assert absent not in figure.svg
        assert "var(--series-1)" in figure.svg


def test_ids_of_figures_are_their_own_and_all_are_used() -> None:
    svgs = [figure.svg for figure in of_tensors(layered(6), "x-")]
    ids = [found for svg in svgs for found in re.findall(r' id="([^"]*)"', svg)]
    assert ids
    assert len(ids) == len(set(ids))
    assert all(found.startswith("x-") for found in ids)
    used = {found for svg in svgs for found in re.findall(r'#([^")]+)["\)]', svg)}
    assert used == set(ids)


def test_figures_are_the_same_each_time_whatever_the_settings_of_matplotlib() -> None:
    import matplotlib

    once = of_tensors(layered(6), "x-")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert of_tensors(layered(6), "x-") == once
        assert matplotlib.rcParams["font.size"] == 30


def test_tensors_without_spread_are_counted_apart() -> None:
    (std, *_) = of_tensors([tensor("a", 4, statistics=stats(std=0)), *layered(2)], "x-")
    assert std.about.endswith("; 1 more have none.")


def test_all_tensors_may_be_constant() -> None:
    assert len(of_tensors([tensor("a", 4, statistics=stats(std=0))], "x-")) == 4


def test_no_tensor_with_statistics_gives_no_figure() -> None:
    assert of_tensors([], "x-") == []


def test_a_figure_of_nothing_but_zeros_can_be_drawn() -> None:
    edges = [0.0, 1.0, 2.0]
    figure = steps_figure("a", "b", [0, 0], edges, prefix="p", label="x", logarithmic=True)
    assert "</svg>" in figure.svg
