from tiny_rules import planned

BODY = """
    scope: m.
    rules:
      - from: qkv
        steps: [{split: {dim: 0, sizes: [2, 2]}}]
        to: {q: [2, 3], k: [2, 3]}
      - {from: bias, to: {bias: [5]}}
    drop: [{name: mask, because: rebuilt}]
    alias: [{name: v, of: k, because: they are tied}]
    allow_nan: [bias]
    """
PLAN = planned(BODY, {"m.qkv": [4, 3], "m.bias": [5], "m.mask": [1], "other": [1]})


def test_targets_are_listed_in_execution_order() -> None:
    assert [(name, str(spec)) for name, spec in PLAN.targets.items()] == [
        ("q", "F32 [2, 3]"),
        ("k", "F32 [2, 3]"),
        ("bias", "F32 [5]"),
    ]


def test_a_source_is_counted_once_however_many_targets_it_makes() -> None:
    assert PLAN.used == 2


def test_what_is_claimed_is_what_is_used_and_what_is_dropped() -> None:
    assert list(PLAN.claimed) == ["m.qkv", "m.bias", "m.mask"]
    assert PLAN.out_of_scope == 1


def test_the_size_of_all_data_is_known_beforehand() -> None:
    assert PLAN.total_bytes == 4 * (6 + 6 + 5)


def test_an_alias_is_stored_once() -> None:
    assert PLAN.aliases == {"v": "k"}
    assert "v" not in PLAN.targets


def test_what_may_hold_nan_is_known() -> None:
    assert PLAN.allow_nan == {"bias"}


def test_every_target_has_its_place_in_a_file() -> None:
    (shard,) = PLAN.shards
    assert shard.file == "model.safetensors"
    assert {p.name: (p.begin, p.end) for p in shard.placements} == {
        "q": (0, 24),
        "k": (24, 48),
        "bias": (48, 68),
    }
