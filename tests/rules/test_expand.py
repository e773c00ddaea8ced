import pytest
from tiny_rules import expanded, fault, faults, parsed, resolved, units

from converter.errors import PlanError
from converter.rules import expand, indices
from converter.rules.indices import MAX_VALUES
from converter.rules.lint import lint_file
from converter.rules.settings import resolve


def names(body: str) -> list[str]:
    """Return the source names of all units, in order."""
    return [name for sources, _ in units(body) for name in sources]


def test_a_closed_range_has_both_of_its_ends() -> None:
    body = 'index: {i: 2..4}\nrules: [{from: "a.{i}", to: {"b.{i}": [1]}}]'
    assert units(body) == [
        (("a.2",), ("b.2",)),
        (("a.3",), ("b.3",)),
        (("a.4",), ("b.4",)),
    ]


def test_a_length_is_a_range_from_zero() -> None:
    body = 'dims: {n: 2}\nindex: {i: n + 1}\nrules: [{from: "a.{i}", to: {"b.{i}": [1]}}]'
    assert names(body) == ["a.0", "a.1", "a.2"]


@pytest.mark.parametrize("bounds", ["0", "3..2", "n - 1", "1..n"])
def test_an_empty_range_is_no_error(bounds: str) -> None:
    body = f"""
        dims: {{n: 0}}
        index: {{i: {bounds}}}
        rules: [{{from: "a.{{i}}", to: {{"b.{{i}}": [1]}}}}]
        """
    assert names(body) == []


def test_a_range_may_depend_on_earlier_indices_and_on_nested_lists() -> None:
    body = """
        dims: {blocks: [1, 2], dilations: [[1, 3], [5]]}
        index: {b: 1..len(blocks), l: "1..blocks[b - 1]", j: len(dilations), n: "len(dilations[j])"}
        rules:
          - from: "block{b}.layer{l}"
            to: {"b.{b - 1}.{l - 1}": ["blocks[b - 1]"]}
          - from: "res.{j}.{n}"
            to: {"r.{j}.{n}": ["dilations[j][n]"]}
        """
    assert names(body) == [
        *("block1.layer1", "block2.layer1", "block2.layer2"),
        *("res.0.0", "res.0.1", "res.1.0"),
    ]
    assert [unit.form.shapes for unit in expanded(body).units][-3:] == [((1,),), ((3,),), ((5,),)]


def test_an_index_that_only_a_range_needs_repeats_the_rule_too() -> None:
    body = """
        dims: {depths: [2, 1]}
        index: {s: 1..2, u: "depths[s - 1]"}
        rules: [{from: "layer{s}.{u}", to: {"b.{u + 10 * s}": [1]}}]
        """
    assert units(body)[1] == (("layer1.1",), ("b.11",))


def test_ranges_may_depend_on_one_another_in_a_chain() -> None:
    body = """
        index: {a: 2, b: a + 1, c: b + 1}
        rules: [{from: "x.{100 * a + 10 * b + c}", to: {"y.{100 * a + 10 * b + c}": [1]}}]
        """
    assert names(body) == [f"x.{number}" for number in (0, 100, 110, 111)]
    alone = 'index: {a: 2, b: a + 1, c: b + 1}\nrules: [{from: "x.{c}", to: {"y.{c}": [1]}}]'
    assert {finding.tensor for finding in faults(alone)} == {"x.0", "y.0"}


def test_placeholders_may_hold_arithmetic_of_indices() -> None:
    body = """
        dims: {count: 3}
        index: {i: count, n: 6}
        rules:
          - from: "up.{count - 1 - i}"
            to: {"down.{i}": [1]}
          - from: "flat.{n}"
            to: {"stages.{n // 3}.blocks.{n % 3}": [1]}
        """
    made = dict(units(body))
    assert made[("up.2",)] == ("down.0",)
    assert made[("up.0",)] == ("down.2",)
    assert made[("flat.4",)] == ("stages.1.blocks.1",)


def test_a_set_is_one_word_in_source_names_and_another_in_canonical_names() -> None:
    body = """
        sets: {p: {query: q_proj, value: v_proj}, leaf: [weight, bias]}
        rules: [{from: "self.{p}.{leaf}", to: {"attention.{p}.{leaf}": [1]}}]
        """
    assert units(body) == [
        (("self.query.weight",), ("attention.q_proj.weight",)),
        (("self.query.bias",), ("attention.q_proj.bias",)),
        (("self.value.weight",), ("attention.v_proj.weight",)),
        (("self.value.bias",), ("attention.v_proj.bias",)),
    ]


def test_a_word_is_what_the_variant_says() -> None:
    body = """
        words: {g: weight}
        variants: {spelling: {modern: {}, legacy: {words: {g: gamma}}}}
        rules: [{from: "norm.{g}", to: {norm.weight: [1]}}]
        """
    assert units(body) == [(("norm.weight",), ("norm.weight",))]
    assert units(body, variant=["legacy"]) == [(("norm.gamma",), ("norm.weight",))]


def test_a_rule_may_narrow_an_index_and_a_set_for_itself() -> None:
    body = """
        index: {i: 4}
        sets: {leaf: [weight, bias]}
        rules:
          - from: "a.{i}.{leaf}"
            index: {i: 2..3}
            sets: {leaf: [weight]}
            to: {"b.{i}.{leaf}": [1]}
          - {from: "c.{i}", to: {"d.{i}": [1]}}
        """
    assert names(body) == ["c.0", "c.1", "a.2.weight", "c.2", "a.3.weight", "c.3"]


def test_consecutive_rules_over_one_index_are_carried_out_index_by_index() -> None:
    body = """
        index: {i: 2, j: 2}
        rules:
          - {from: first, to: {x: [1]}}
          - {from: "a.{i}", to: {"y.{i}": [1]}}
          - {from: "b.{i}.{j}", to: {"z.{i}.{j}": [1]}}
          - {from: middle, to: {m: [1]}}
          - {from: "c.{i}", to: {"n.{i}": [1]}}
        """
    assert names(body) == [
        *("first", "a.0", "b.0.0", "b.0.1", "a.1", "b.1.0", "b.1.1", "middle", "c.0", "c.1"),
    ]


def test_gather_lists_the_sources_in_the_order_of_integers() -> None:
    body = """
        dims: {layers: 2, experts: 12}
        index: {i: layers, e: experts}
        rules:
          - from: "layers.{i}.experts.{e}.w"
            gather: e
            steps: [{stack: {dim: 0}}]
            to: {"blocks.{i}.experts.w": [experts, 4]}
        """
    (first, target), _ = units(body)
    assert first == tuple(f"layers.0.experts.{e}.w" for e in range(12))
    assert target == ("blocks.0.experts.w",)


def test_gather_lists_all_of_the_first_name_before_the_second() -> None:
    body = """
        index: {e: 2}
        rules:
          - from: ["{e}.gate", "{e}.up"]
            gather: e
            steps: [{concat: {dim: 0}}]
            to: {gate_up: [8]}
        """
    assert names(body) == ["0.gate", "1.gate", "0.up", "1.up"]


def test_scatter_lists_the_targets_in_the_order_of_integers() -> None:
    body = """
        dims: {sizes: [1, 2, 3]}
        index: {i: 2, e: len(sizes)}
        rules:
          - from: "fused.{i}"
            scatter: e
            steps: [{split: {dim: 0, sizes: ["sizes[0]", "sizes[1]", "sizes[2]"]}}]
            to: {"part.{i}.{e}": ["sizes[e]", 4]}
        """
    second = expanded(body).units[1]
    assert second.targets == (("part.1.0", (1, 4)), ("part.1.1", (2, 4)), ("part.1.2", (3, 4)))
    assert second.form.source_shapes == ((6, 4),)


def test_the_range_of_a_gathered_index_may_depend_on_another() -> None:
    body = """
        dims: {experts: [1, 3]}
        index: {i: len(experts), e: "experts[i]"}
        rules:
          - from: "{i}.{e}"
            gather: e
            steps: [{stack: {dim: 0}}]
            to: {"b.{i}": ["experts[i]", 2]}
        """
    assert [len(sources) for sources, _ in units(body)] == [1, 3]


def test_a_condition_is_asked_for_every_value_of_its_indices() -> None:
    body = """
        dims: {layers: 5}
        index: {i: layers}
        rules: [{from: "skip.{i}", when: i > layers // 2, to: {"s.{i}": [1]}}]
        """
    assert names(body) == ["skip.3", "skip.4"]


def test_a_condition_may_mention_an_index_that_names_do_not() -> None:
    body = "index: {i: 3}\nrules: [{from: a, when: i == 2, to: {b: [1]}}]"
    assert names(body) == ["a"]


def test_a_condition_on_dims_alone_comes_before_the_ranges() -> None:
    body = """
        dims: {rates: []}
        index: {i: "rates[0]"}
        rules:
          - {from: "a.{i}", when: len(rates) > 0, to: {"b.{i}": [1]}}
          - {from: c, to: {d: [1]}}
        """
    assert names(body) == ["c"]


def test_names_stand_behind_the_scope_and_the_prefix_of_the_source() -> None:
    body = "scope: m.\nrules: [{from: a, to: {b: [1]}}]\ndrop: [{name: c, because: d}]"
    expansion = expanded(body, source_prefix="net.")
    assert expansion.units[0].sources == ("net.m.a",)
    assert expansion.drops[0].name == "net.m.c"
    assert expanded(body, scope="").units[0].sources == ("a",)


def test_names_of_a_scope_of_several_prefixes_are_written_whole() -> None:
    body = "scope: [m.]\nrules: [{from: m.a, to: {b: [1]}}]"
    assert names(body) == ["m.a"]


def test_each_name_of_a_drop_is_repeated_over_what_it_mentions_alone() -> None:
    body = """
        index: {i: 2, j: 3}
        drop: [{name: ["a.{i}", c, "d.{j}"], because: of no use}]
        """
    dropped = [drop.name for drop in expanded(body).drops]
    assert dropped == ["a.0", "a.1", "c", "d.0", "d.1", "d.2"]


def test_the_twin_of_a_dropped_tensor_has_the_same_indices() -> None:
    body = 'index: {i: 2}\ndrop: [{name: "a.{i}", expect: {equals: "b.{i}"}, because: twins}]'
    assert [(drop.name, drop.equals) for drop in expanded(body).drops] == [
        ("a.0", "b.0"),
        ("a.1", "b.1"),
    ]


def test_a_count_may_be_an_expression() -> None:
    body = "dims: {n: 3}\nindex: {i: 2}\ndrop: [{name: 'a.{i}.**', count: 2 * n + i, because: x}]"
    assert [(drop.name, drop.count) for drop in expanded(body).drops] == [("a.0.", 6), ("a.1.", 7)]


def test_aliases_are_repeated_and_conditional_like_rules() -> None:
    body = """
        dims: {tied: 1}
        index: {i: 2}
        rules: [{from: "a.{i}", to: {"b.{i}": [1]}}]
        alias: [{name: "c.{i}", of: "b.{i}", when: tied == 1, because: they are tied}]
        """
    assert [(alias.name, alias.of) for alias in expanded(body).aliases] == [
        ("c.0", "b.0"),
        ("c.1", "b.1"),
    ]
    assert expanded(body, dims={"tied": 0}).aliases == ()


def test_names_that_may_hold_nan_are_written_out() -> None:
    body = 'index: {i: 2}\nrules: [{from: "a.{i}", to: {"b.{i}": [1]}}]\nallow_nan: ["b.{i}"]'
    assert list(expanded(body).allow_nan) == ["b.0", "b.1"]


def test_shapes_are_worked_back_through_the_steps() -> None:
    body = """
        dims: {hidden: 4}
        rules:
          - from: qkv
            steps: [transpose, {split: {dim: 0, sizes: [hidden, hidden, 2]}}]
            to: {q: [hidden, 3], k: [hidden, 3], v: [2, 3]}
          - from: [g, v]
            steps: [{fold_weight_norm: {dim: 0}}]
            to: {w: [hidden, 3]}
        """
    assert [unit.form.source_shapes for unit in expanded(body).units] == [
        ((3, 10),),
        ((4, 1), (4, 3)),
    ]


def test_shapes_that_the_steps_leave_open_are_left_open() -> None:
    body = "rules: [{from: [a, b], steps: [{concat: {dim: 0}}], to: {c: [4]}}]"
    assert expanded(body).units[0].form.source_shapes is None


def test_units_that_differ_in_names_alone_share_a_form() -> None:
    body = """
        dims: {widths: [4, 4, 8]}
        index: {i: 3, j: 2}
        rules: [{from: "a.{i}.{j}", to: {"b.{i}.{j}": ["widths[i]"]}}]
        """
    forms = [unit.form for unit in expanded(body).units]
    assert forms[0] is forms[1]
    assert [form.shapes for form in forms[::2]] == [((4,),), ((4,),), ((8,),)]


@pytest.mark.parametrize(
    ("steps", "shape", "line", "what"),
    [
        ("[]", "[4], c: [4]", 3, "another number of tensors come out of the steps"),
        ("[{chunk: {dim: 0, chunks: 2}}]", "[4]", 4, "another number of tensors come out"),
        ("[{split: {dim: 0, sizes: [3, 2]}}]", "[3], c: [3]", 4, "split: output 1 is not of"),
        ("[{split: {dim: 1, sizes: [3, 3]}}]", "[3], c: [3]", 4, "split: no dim 1"),
        ("[{stack: {dim: 0}}]", "[2, 3]", 4, "another number of tensors go into stack"),
        ("[{fold_weight_norm: {dim: 0}}]", "[3]", 4, "another number of tensors go into fold"),
        ("[{reorder_chunks: {dim: 0, order: [1, 0]}}]", "[3]", 4, "reorder_chunks: dim 0"),
        ("[transpose]", "[3]", 4, "transpose: no dim 1"),
        ("[{unsqueeze: {dim: 0}}]", "[3]", 4, "unsqueeze: dim 0 of the output is not"),
        ("[{reshape: {shape: [3, 2]}}]", "[6]", 4, "reshape: the output is not of the stated"),
        ("[{slice: {dim: 0, start: 1, stop: 3, because: x}}]", "[3]", 4, "slice: dim 0"),
    ],
)
def test_shapes_that_cannot_add_up_are_refused_at_the_step(
    steps: str, shape: str, line: int, what: str
) -> None:
    body = f"""
        dims: {{n: 1}}
        rules:
          - from: a
            steps: {steps}
            to: {{b: {shape}}}
        """
    finding = fault(body.replace("            steps: []\n", "            about: no steps\n"))
    assert finding.code == "shape"
    assert finding.where == f"tiny.yaml:{line}"
    assert finding.what.startswith(f"the shapes cannot add up: {what}")
    assert finding.expected is not None
    assert finding.got is not None


@pytest.mark.parametrize(
    ("step", "what"),
    [
        ("squeeze: {dim: n - 2}", "squeeze: a negative dim"),
        ("permute: {dims: [0, 0]}", "permute: dims is not a permutation"),
        ("slice: {dim: 0, start: 2, stop: 2, because: x}", "slice: an empty or negative range"),
        ("chunk: {dim: 0, chunks: 0}", "chunk: "),
        ("cast: {dtype: F4}", "cast: 'F4' is no dtype of numbers"),
        ("reshape: {shape: [n - 2]}", "reshape: a negative size"),
        ("chunk: {dim: 0, chunks: 8 // (n - 1)}", "'8 // (n - 1)' has no value"),
    ],
)
def test_a_step_with_a_wrong_value_is_refused_where_it_stands(step: str, what: str) -> None:
    finding = fault(f"""
        dims: {{n: 1}}
        rules:
          - from: a
            steps:
              - {step}
            to: {{b: [1]}}
        """)
    assert finding.what.startswith(what)
    assert finding.where == "tiny.yaml:5"


def test_a_shape_with_a_negative_length_is_refused_where_it_stands() -> None:
    finding = fault("""
        dims: {n: 1}
        rules:
          - from: a
            to:
              b: [2, n - 2]
        """)
    assert finding.what == "not the shape of a canonical tensor"
    assert finding.where == "tiny.yaml:5"
    assert finding.got == "[2, -1]"


@pytest.mark.parametrize("name", [".b", "b/c", "é", "-b", "b" * 513])
def test_what_no_canonical_tensor_may_be_called_is_refused(name: str) -> None:
    finding = fault(f"rules:\n  - from: a\n    to: {{'{name}': [1]}}")
    assert finding.what == "not the name of a canonical tensor"
    assert finding.where == "tiny.yaml:2"


def test_a_negative_index_is_refused() -> None:
    finding = fault('index: {i: 2}\nrules:\n  - from: "a.{i - 1}"\n    to: {"b.{i}": [1]}')
    assert finding.what == "the placeholder {i - 1} of 'a.{i - 1}' is negative"
    assert finding.where == "tiny.yaml:3"


@pytest.mark.parametrize(
    "part",
    [
        'drop:\n  - {name: "x.{i - 1}", because: of no use}',
        'drop:\n  - {name: x, expect: {equals: "y.{i}"}, because: they are twins}',
        'alias:\n  - {name: "x.{i - 1}", of: b, because: they are tied}',
        'allow_nan:\n  - "b.{i - 1}"',
    ],
)
def test_a_name_that_cannot_be_filled_is_refused_where_it_stands(part: str) -> None:
    assert fault(f"index: {{i: 2}}\n{part}").where == "tiny.yaml:3"


def test_an_index_beyond_a_list_is_refused() -> None:
    finding = fault("""
        dims: {rates: [4, 2]}
        index: {i: 3}
        rules:
          - from: a.{i}
            to: {"b.{i}": ["rates[i]"]}
        """)
    assert finding.what == "'rates[i]' has no value: index 2 is outside a list of 2"
    assert finding.where == "tiny.yaml:5"
    assert finding.got == "i = 2, rates = [4, 2]"


def test_a_list_is_no_range() -> None:
    finding = fault('dims: {r: [2]}\nindex: {i: r}\nrules: [{from: "a.{i}", to: {"b.{i}": [1]}}]')
    assert finding.what == "'r' is a list, not a number"
    assert finding.where == "tiny.yaml:2"


def test_one_fault_for_every_repetition_is_said_once() -> None:
    assert len(faults('index: {i: 9}\nrules: [{from: "a.{i}", to: {"/{i}": [1]}}]')) == 1


def test_a_dim_that_would_never_end_is_refused_at_once() -> None:
    body = 'dims: {n: 1}\nindex: {i: n}\nrules: [{from: "a.{i}", to: {"b.{i}": [1]}}]'
    finding = fault(body, dims={"n": 10**15})
    assert finding.what == "an index has too many values"
    assert finding.where == "tiny.yaml:2"
    assert finding.expected == f"at most {MAX_VALUES:,}"


def test_indices_that_multiply_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indices, "MAX_VALUES", 100)
    finding = fault('index: {i: 8, j: 8}\nrules: [{from: "a.{i}.{j}", to: {"b.{i}.{j}": [1]}}]')
    assert finding.what == "the rules are repeated too often"


def test_expansion_never_raises_for_a_fault_of_the_file() -> None:
    rule_file = parsed("dims: {r: []}\nrules: [{from: a, to: {b: ['r[0]']}}]")
    expansion = expand.expand(rule_file, resolve(rule_file))
    assert expansion.units == ()
    assert len(expansion.findings) == 1


def test_a_source_name_that_no_checkpoint_can_have_is_refused() -> None:
    body = 'words: {w: "WORD"}\nrules: [{from: "{w}", to: {b: [1]}}]'
    assert names(body.replace("WORD", "x" * 512)) == ["x" * 512]
    assert fault(body.replace("WORD", "x" * 513)).what == "too long for the name of a source tensor"


def test_an_alias_has_a_canonical_name() -> None:
    body = 'rules: [{from: a, to: {b: [1]}}]\nalias: [{name: "/b", of: b, because: it is}]'
    assert fault(body).what == "not the name of a canonical tensor"


@pytest.mark.parametrize(
    "body",
    [
        'index: {i: 8, j: 8, k: 1..0}\nrules: [{from: "a.{i}.{j}.{k}", to: {"{i}.{j}.{k}": [1]}}]',
        'index: {i: 8, j: 8}\nrules: [{from: "{i}.{j}", when: i < 0, to: {"{i}.{j}": [1]}}]',
        'index: {i: 8, j: 8}\nrules: [{from: "{i}.{j}", gather: j, to: {"{i}": [1]}}]',
        "sets: {s: [a, b, c, d], t: [a, b, c, d], u: [a, b, c]}\n"
        'rules: [{from: "{s}{t}{u}", to: {"{s}{t}{u}": [1]}}]',
        'index: {i: 40}\nrules: [{from: "{i}", to: {"{i}": ["1 + 1 + 1"]}}]',
    ],
)
def test_work_that_makes_no_names_has_an_end_too(
    body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(finding.code != "range" for finding in faults(body))
    monkeypatch.setattr(indices, "MAX_WORK", 60)
    assert fault(body).what == "the rules are repeated too often"


def test_variants_share_the_work_that_lint_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = "variants: {size: {a: {dims: {n: 1}}, b: {dims: {n: 2}}, c: {dims: {n: 3}}}}"
    body = 'dims: {n: 1}\nindex: {i: 10}\nrules: [{from: "{i}", to: {"{i}": [n]}}]\n' + variants
    assert lint_file(parsed(body)).findings == ()
    monkeypatch.setattr(indices, "MAX_WORK", 250)
    (finding,) = lint_file(parsed(body)).findings
    assert finding.what == "the rules are repeated too often"


def test_requirements_have_an_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    body = "index: {i: 30}\nrequire: [{that: i >= 0, because: it is}]"
    assert resolved(body).dims == {}
    monkeypatch.setattr(indices, "MAX_WORK", 60)
    with pytest.raises(PlanError, match="too many values of indices"):
        resolved(body)
