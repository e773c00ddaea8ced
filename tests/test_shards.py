"""A plan taken apart: what can be made one by one, anywhere."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
from tiny_rules import planned

from converter import api
from converter.plan import Plan, shards_of
from converter.shards import parts_of

BODY = """
    dims: {n: 4, half: 2}
    index: {i: n}
    allow_nan: ["b.{i}.up"]
    rules:
      - from: a.{i}
        steps: [{split: {dim: 0, sizes: [half, half]}}]
        to: {"b.{i}.up": [half], "b.{i}.down": [half]}
      - from: g
        to: {g: [1]}
    alias:
      - {name: h, of: g, because: tied}
    drop:
      - {name: p, expect: arange, because: a ramp}
      - {name: q, because: not needed}
"""


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Nine targets of 8 bytes, in files of at most 12, so one in each."""
    shapes = {f"a.{i}": (4,) for i in range(4)} | {"g": (1,), "p": (3,), "q": (2,)}
    made = planned(BODY, shapes)
    return replace(made, shards=shards_of(made.bindings, 12))


def test_the_parts_are_the_proofs_and_then_the_files_in_their_order(plan: Plan) -> None:
    proofs, *files = parts_of(plan)
    assert [dropped.name for dropped in proofs.dropped] == ["p"]
    assert proofs.shards == ()
    assert proofs.bindings == ()
    assert tuple(shard for part in files for shard in part.shards) == plan.shards
    assert all(len(part.shards) == 1 and not part.dropped for part in files)


def test_without_proofs_there_is_a_part_for_each_file_alone(plan: Plan) -> None:
    unproven = replace(plan, dropped=tuple(d for d in plan.dropped if not d.expect))
    assert [part.shards for part in parts_of(unproven)] == [(shard,) for shard in plan.shards]


def test_a_part_binds_what_goes_into_its_file_and_nothing_else(plan: Plan) -> None:
    _, *files = parts_of(plan)
    for part in files:
        stored = {placement.name for shard in part.shards for placement in shard.placements}
        assert all(stored.intersection(binding.targets) for binding in part.bindings)
        assert stored <= part.targets.keys()


def test_what_goes_into_two_files_is_made_for_both(plan: Plan) -> None:
    _, *files = parts_of(plan)
    halves = [part for part in files if "b.2.up" in part.targets]
    assert len(halves) == 2
    assert halves[0].bindings == halves[1].bindings
    assert halves[0].shards != halves[1].shards


def test_a_part_knows_where_its_own_values_may_be_nan(plan: Plan) -> None:
    assert plan.allow_nan == {f"b.{i}.up" for i in range(4)}
    for part in parts_of(plan):
        assert part.allow_nan == plan.allow_nan.intersection(part.targets)


def test_a_part_names_lines_of_the_rule_file_and_has_nothing_else_of_it(plan: Plan) -> None:
    for part in parts_of(plan):
        assert part.rule_file.where(3) == plan.rule_file.where(3)
        assert part.rule_file.sha256 == plan.rule_file.sha256
        assert part.rule_file.rules == ()


def test_the_parts_of_a_full_size_plan_can_be_sent_and_are_small() -> None:
    header = Path(__file__).parent / "headers" / "s2mel.json"
    whole = api.plan(header, model="dit", source_prefix="net.", max_shard_size="50MB")
    parts = list(parts_of(whole))
    sent = [bytes(ForkingPickler.dumps(part)) for part in parts]
    assert [ForkingPickler.loads(data) for data in sent] == parts
    assert len(whole.shards) > 4
    assert sum(map(len, sent)) < 1000 * (len(whole.bindings) + 10 * len(parts))
