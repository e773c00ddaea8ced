from pages import layered, manifest, tensor

from converter.manifest import DropRecord, StandInRecord
from converter.page.lineage import Flow, common_prefix, dropped_of, flows_of, step_text

SPLIT = {"split": {"dim": 0, "sizes": [4, 4]}}


def test_layers_alike_are_one_flow() -> None:
    flows = flows_of(manifest(*layered(12)))
    assert [(flow.sources, flow.targets, flow.count) for flow in flows[:2]] == [
        (("old.embedding.weight",), ("embedding.weight",), 1),
        (("old.layers.{0..11}.attention.q.weight",), ("layers.{0..11}.attention.q.weight",), 12),
    ]
    assert [flow.targets for flow in flows[2:]] == [
        ("layers.{0..11}.fc{1..2}.weight",),
        ("layers.{0..11}.norm.weight",),
        ("layers.{0..11}.fc1.bias",),
    ]
    assert {flow.how for flow in flows} == {"renamed"}


def test_steps_stand_on_the_way_with_the_shapes_before_and_behind() -> None:
    made = [
        tensor(f"h.{i}.{leaf}", 4, 2, sources=[f"kv.{i}"], source_shapes=[(8, 2)], steps=[SPLIT])
        for i in range(3)
        for leaf in ("k", "v")
    ]
    (flow,) = flows_of(manifest(*made))
    assert flow == Flow(
        how="steps",
        sources=("kv.{0..2} [8, 2]",),
        steps=("split {dim: 0, sizes: [4, 4]}",),
        targets=("h.{0..2}.k [4, 2]", "h.{0..2}.v [4, 2]"),
        aliases=(),
        count=3,
        size=3 * 2 * 32,
    )


def test_shapes_that_differ_are_left_out() -> None:
    made = [
        tensor(f"w.{i}", i + 1, sources=[f"s.{i}"], source_shapes=[(i + 1,)], steps=[{"flip": {}}])
        for i in range(2)
    ]
    (flow,) = flows_of(manifest(*made))
    assert (flow.sources, flow.targets) == (("s.{0..1}",), ("w.{0..1}",))


def test_what_is_filled_in_comes_from_names_that_were_absent() -> None:
    made = tensor("norm.weight", 4, sources=())
    record = StandInRecord("norm.weight", "ones", ("old.norm",))
    (flow,) = flows_of(manifest(made, stand_ins=[record]))
    assert (flow.how, flow.sources, flow.note) == ("stand-in", ("old.norm",), "filled with ones")


def test_aliases_stand_beside_what_they_share() -> None:
    about = manifest(tensor("embedding", 4), aliases={"head": "embedding"})
    assert flows_of(about)[0].aliases == ("head",)


def test_drops_of_one_reason_are_folded_and_come_last() -> None:
    drops = [
        DropRecord(f"h.{i}.mask", "F32", (4,), "rebuilt", "lower_triangular") for i in range(4)
    ]
    about = manifest(tensor("w", 4), dropped=[*drops, DropRecord("x", "F32", (1,), "unused")])
    renamed, masks, other = flows_of(about)
    assert renamed.targets == ("w",)
    assert (masks.how, masks.sources, masks.note, masks.count) == (
        "dropped",
        ("h.{0..3}.mask",),
        "rebuilt",
        4,
    )
    assert other.sources == ("x",)
    assert [group.proven for group in dropped_of(about)] == ["lower_triangular", ""]


def test_a_prefix_of_all_sources_is_found_up_to_a_dot() -> None:
    about = manifest(
        tensor("a", 4, sources=["net.cfm.alpha"]),
        dropped=[DropRecord("net.cfm.also", "F32", (4,), "unused")],
    )
    assert common_prefix(about) == "net.cfm."
    assert [flow.sources for flow in flows_of(about, prefix="net.cfm.")] == [("alpha",), ("also",)]


def test_a_short_prefix_is_not_worth_leaving_out() -> None:
    assert common_prefix(manifest(tensor("a", 4), tensor("b", 4))) == ""


def test_a_step_is_spelled_as_in_a_rule_file() -> None:
    assert step_text(SPLIT) == "split {dim: 0, sizes: [4, 4]}"
    assert step_text({"squeeze": {}}) == "squeeze"
    assert step_text({"rearrange": {"pattern": "a b -> b a"}}) == "rearrange {pattern: a b -> b a}"
