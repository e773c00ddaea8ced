from pages import manifest, tensor

from converter.manifest import DropRecord
from converter.page.lineage import flows_of
from converter.page.picture import Lane, lanes_of, wrapped

SPLIT = {"split": {"dim": 0, "sizes": [4, 4]}}


def lanes(*names: str) -> dict[str, Lane]:
    found, _ = lanes_of(flows_of(manifest(*(tensor(name, 4) for name in names))))
    return {lane.title: lane for lane in found}


def test_small_parts_beside_each_other_share_a_lane() -> None:
    layers = [f"layers.{kind}" for kind in "abcd"]
    assert list(lanes("x.w", "y.w", *layers, "z.w")) == ["x, y", "layers", "z"]


def test_every_name_stands_in_both_pictures() -> None:
    drop = DropRecord("old.mask", "F32", (4,), "rebuilt by the network")
    made = [
        tensor(f"h.{i}.{leaf}", 4, sources=[f"kv.{i}"], steps=[SPLIT])
        for i in (0, 1)
        for leaf in "kv"
    ]
    (first, last), left_out = lanes_of(flows_of(manifest(*made, dropped=[drop])))
    assert left_out == 0
    for picture in (first.wide, first.narrow):
        texts = {label.text for label in picture.labels}
        assert texts >= {"kv.{0..1}", "h.{0..1}.k [4]", "h.{0..1}.v [4]"}
        (box,) = picture.boxes
        assert " ".join(box.lines) == "split {dim: 0, sizes: [4, 4]}  ×2"
    assert last.title == "dropped, and why"
    assert [label.text for label in last.wide.labels] == ["old.mask"]
    assert last.wide.boxes[0].lines == ("rebuilt by the network",)


def test_nothing_stands_outside_of_its_picture() -> None:
    long = ".".join(["encoder", "transformer", "layers"] * 12)
    (lane,) = lanes(long, "x").values()
    for picture, widest in ((lane.wide, 54), (lane.narrow, 47)):
        assert all(0 <= label.x <= picture.width for label in picture.labels)
        assert all(0 < label.y < picture.height for label in picture.labels)
        assert max(len(label.text) for label in picture.labels) <= widest
        assert all(box.x >= 0 and box.x + box.width <= picture.width for box in picture.boxes)


def test_a_line_is_thicker_where_more_flows() -> None:
    found, _ = lanes_of(flows_of(manifest(tensor("a.large", 1000, 1000), tensor("a.small", 4))))
    large, small = found[0].wide.edges[0], found[0].wide.edges[-1]
    assert large.width > 3 * small.width


def test_of_very_many_flows_the_largest_are_drawn_and_the_rest_counted() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    tensors = [tensor(f"{a}.{b}.w", 4) for a in letters for b in letters[:10]]
    found, left_out = lanes_of(flows_of(manifest(*tensors, tensor("zz.large", 4000))))
    drawn = {label.text for lane in found for label in lane.wide.labels}
    assert left_out == 261 - 240
    assert "zz.large" in drawn


def test_a_picture_says_in_words_what_it_shows() -> None:
    made = [tensor(f"h.{i}", 4, sources=[f"old.{i}"], steps=[SPLIT]) for i in range(3)]
    (lane,), _ = lanes_of(flows_of(manifest(*made)))
    assert (
        lane.wide.about == "From source to canonical names: 3 units of work through steps (split)."
    )


def test_a_name_is_broken_behind_a_dot() -> None:
    assert wrapped("encoder.layers.attention.weight", 20) == ["encoder.layers.", "attention.weight"]


def test_a_very_long_name_is_shortened_in_its_middle() -> None:
    lines = wrapped("x" * 500, 20)
    assert len(lines) <= 5
    assert "…" in "".join(lines)
