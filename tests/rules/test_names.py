import pytest
from tiny_rules import fault, faults, parsed


def rule(
    source: str = "a",
    target: str = "b",
    shape: str = "1",
    more: str = "keep_dtype: true",
    also: str = "about: a rule of five lines",
) -> str:
    """Return a rule file whose one rule, from line 7 on, may say two things more."""
    return f"""
        dims: {{layers: 2, sizes: [1, 2]}}
        derived: {{double: 2 * layers}}
        index: {{i: layers, e: 3}}
        sets: {{p: [query, key]}}
        words: {{g: gamma}}
        rules:
          - from: "{source}"
            {more}
            {also}
            to:
              "{target}": [{shape}]
        """


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (rule(source="a.{lyers}"), 7),
        (rule(source="a.{layers - lyers}"), 7),
        (rule(target="b.{lyers}"), 11),
        (rule(shape="lyers"), 11),
        (rule(more="when: lyers == 3"), 7),
        (rule(more="steps: [{squeeze: {dim: lyers}}]"), 8),
        (rule(more="steps: [{split: {dim: 0, sizes: [1, lyers]}}]"), 8),
        (rule(more="index: {k: lyers}"), 8),
        (rule(more="index: {k: 1..lyers - 1}"), 8),
        ("dims: {layers: 2}\nindex: {i: lyers}", 2),
        ("dims: {layers: 2}\nderived:\n  x: 1\n  y: [x, lyers]", 4),
        ("dims: {layers: 2}\nrequire:\n  - {that: lyers > 0, because: x}", 3),
        ("dims: {layers: 2}\naudio:\n  n_mels: lyers", 3),
        ("dims: {layers: 2}\ndrop:\n  - {name: 'x.{lyers}', because: x}", 3),
        ("dims: {layers: 2}\ndrop:\n  - {name: x.**, count: lyers, because: x}", 3),
        ("dims: {layers: 2}\ndrop: [{name: x, expect: {equals: 'y.{lyers}'}, because: x}]", 2),
        ("dims: {layers: 2}\ndrop:\n  - {name: x, when: lyers, because: x}", 3),
        ("dims: {layers: 2}\nalias:\n  - {name: 'x.{lyers}', of: b, because: x}", 3),
        ("dims: {layers: 2}\nalias:\n  - {name: x, of: 'b.{lyers}', because: x}", 3),
        ("dims: {layers: 2}\nallow_nan:\n  - b.{lyers}", 3),
    ],
)
def test_a_name_that_is_declared_nowhere_is_refused_wherever_it_stands(
    body: str, line: int
) -> None:
    finding = fault(body)
    assert finding.code == "unknown-name"
    assert finding.where == f"tiny.yaml:{line}"
    assert finding.got == "'lyers'"
    assert finding.hint == "did you mean 'layers'?"


def test_a_name_is_unknown_in_a_rule_that_does_not_count_too() -> None:
    body = rule(shape="hidn", more="when: layers == 77")
    assert fault(body).code == "unknown-name"


def test_a_set_stands_alone_in_its_placeholder() -> None:
    assert "'p' in 'a.{p + 1}'" in fault(rule(source="a.{p + 1}", target="b.{p}")).what


def test_a_derived_name_may_use_earlier_ones_only() -> None:
    finding = fault("derived:\n  x: 2 * y\n  y: 3")
    assert finding.where == "tiny.yaml:2"
    assert finding.expected == "one of none: there are none"


def test_a_range_may_use_indices_declared_before_it_only() -> None:
    assert fault("index:\n  i: j\n  j: 2").where == "tiny.yaml:2"
    assert not faults("index:\n  j: 2\n  i: j")


def test_a_requirement_may_use_indices() -> None:
    assert not faults("""
        dims: {r: [1, 2]}
        index: {i: len(r)}
        require: [{that: "r[i] > 0", because: every rate counts}]
        """)


@pytest.mark.parametrize(
    ("body", "line", "got"),
    [
        ("dims: {i: 2}\nindex:\n  i: 3", 3, "dims.i at tiny.yaml:1"),
        ("dims: {x: 2}\nderived: {x: 3}", 2, "dims.x at tiny.yaml:1"),
        ("sets: {p: [a]}\nwords: {p: b}", 2, "sets.p at tiny.yaml:1"),
        ("index: {p: 1}\nsets: {p: [a]}", 2, "index.p at tiny.yaml:1"),
        (
            "dims: {n: 1}\nrules:\n  - from: a\n    index: {n: 1}\n    to: {b: [1]}",
            4,
            "dims.n at tiny.yaml:1",
        ),
        (
            "rules:\n  - from: a\n    index: {n: 1}\n    sets: {n: [x]}\n    to: {b: [1]}",
            4,
            "rules.0.index.n at tiny.yaml:3",
        ),
        ("variants:\n  x: {a: {}}\n  y: {a: {}}", 3, "variants.x.a at tiny.yaml:2"),
    ],
)
def test_a_name_means_one_thing(body: str, line: int, got: str) -> None:
    finding = fault(body)
    assert finding.code == "namespace"
    assert finding.where == f"tiny.yaml:{line}"
    assert finding.got == got


def test_a_rule_may_have_indices_and_sets_of_its_own_in_place_of_the_files() -> None:
    rule_file = parsed("""
        index: {i: 2}
        sets: {p: [x]}
        rules:
          - from: a.{i}.{p}
            index: {i: 3..4}
            sets: {p: {y: z}}
            to: {"b.{i}.{p}": [1]}
        """)
    assert rule_file.rules[0].repeat.sets == {"p": {"y": "z"}}


def test_a_word_is_no_part_of_a_canonical_name() -> None:
    finding = fault(rule(source="a.{g}", target="b.{g}"))
    assert finding.what == "the word 'g' stands in the canonical name 'b.{g}'"
    assert finding.where == "tiny.yaml:11"


@pytest.mark.parametrize(
    ("overridden", "code"),
    [
        ("dims: {layer: 3}", "unknown-name"),
        ("words: {h: x}", "unknown-name"),
        ("dims: {double: 3}", "unknown-name"),
        ("dims: {layers: [3]}", "dim"),
        ("dims: {sizes: [[3]]}", "dim"),
    ],
)
def test_a_variant_overrides_what_there_is_by_something_alike(overridden: str, code: str) -> None:
    finding = fault(f"""
        dims: {{layers: 2, sizes: [1, 2]}}
        derived: {{double: 2 * layers}}
        words: {{g: gamma}}
        variants:
          size:
            small: {{}}
            big: {{{overridden}}}
        """)
    assert finding.code == code
    assert finding.where == "tiny.yaml:7"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (rule("a", "b", more="gather: e"), "gather: the index 'e' is not in every name of from"),
        (rule("a.{e}", "b.{e}", more="gather: e"), "gather: the index 'e' stands in to too"),
        (rule("a.{e}", "b", "e", more="gather: e"), "gather: the index 'e' stands in to too"),
        (rule("a", "b", more="scatter: e"), "scatter: the index 'e' is not in every name of to"),
        (rule("a.{e}", "b.{e}", more="scatter: e"), "scatter: the index 'e' stands in from too"),
        (
            rule("a.{e}", more="gather: e", also="steps: [{chunk: {dim: 0, chunks: e}}]"),
            "gather: the index 'e' stands in steps too",
        ),
        (
            rule("a.{e}", more="gather: e", also="when: e < 2"),
            "gather: the index 'e' stands in when too",
        ),
        (
            rule("a.{e}.{k}", more="gather: e", also="index: {k: e}"),
            "gather: the index 'e' stands in index too",
        ),
        (rule(more="gather: f"), "gather: 'f' is no index"),
    ],
)
def test_an_index_that_lists_stands_on_its_side_alone(body: str, what: str) -> None:
    finding = fault(body)
    assert finding.what == what
    assert finding.where == "tiny.yaml:7"
    assert finding.expected is not None


def test_a_fault_of_the_file_that_every_rule_would_meet_is_listed_once() -> None:
    body = """
        index: {i: layrs}
        rules:
          - {from: "a.{i}", to: {"b.{i}": [1]}}
          - {from: "c.{i}", to: {"d.{i}": [1]}}
        """
    assert len(faults(body)) == 1
