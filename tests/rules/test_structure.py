import pytest
from tiny_rules import fault, faults, finding_of, parsed

from converter.errors import RuleError
from converter.rules.parse import parse


def test_an_unknown_field_is_refused_with_the_nearest() -> None:
    finding = fault("""
        rules:
          - from: a
            to: {b: [1]}
            stpes: [transpose]
        """)
    assert finding.what == "rules.0 has no field 'stpes'"
    assert finding.where == "tiny.yaml:4"
    assert finding.got == "'stpes'"
    assert finding.hint == "did you mean 'steps'?"


def test_every_missing_field_is_named_once() -> None:
    with pytest.raises(RuleError) as caught:
        parse(b"format: 1\nrules: [{from: a, to: {b: [1]}}]\n", "tiny.yaml")
    assert [finding.what for finding in caught.value.findings] == [
        f"the file lacks the field {field!r}" for field in ("model", "title", "origin", "dtypes")
    ]


@pytest.mark.parametrize("step", ["splitt", "splitt: {dim: 0, sizes: [1]}"])
def test_an_unknown_step_is_refused_with_those_that_there_are(step: str) -> None:
    finding = fault(f"""
        rules:
          - from: a
            steps:
              - transpose
              - {step}
            to: {{b: [1]}}
        """)
    assert finding.code == "unknown-step"
    assert finding.what == "unknown step 'splitt'"
    assert finding.where == "tiny.yaml:5"
    assert finding.expected is not None
    assert finding.expected.startswith("one of add, cast, chunk, concat, constant, ")
    assert finding.hint == "did you mean 'split'?"


@pytest.mark.parametrize(
    ("step", "what"),
    [
        ("split: {dim: 0}", "rules.0.steps.0.split lacks the field 'sizes'"),
        ("split: {dim: 0, size: [1], sizes: [1]}", "rules.0.steps.0.split has no field 'size'"),
        ("slice: {dim: 0, start: 0, stop: 1}", "rules.0.steps.0.slice lacks the field 'because'"),
        ("chunk: {dim: 0, chunks: 2.0}", "rules.0.steps.0.chunk.chunks does not fit the schema"),
        ("chunk: {dim: [0], chunks: 2}", "rules.0.steps.0.chunk.dim does not fit the schema"),
        ("split: {dim: 0, sizes: 2}", "rules.0.steps.0.split.sizes does not fit the schema"),
        ("cast: {dtype: f32}", "rules.0.steps.0.cast.dtype does not fit the schema"),
        ("cast", "rules.0.steps.0 does not fit the schema"),
        ("split: ", "rules.0.steps.0.split does not fit the schema"),
        ("{squeeze: {dim: 0}, unsqueeze: {dim: 0}}", "rules.0.steps.0 does not fit the schema"),
        ("merge_shards: {}", "rules.0.steps.0.merge_shards does not fit the schema"),
        (
            "merge_shards: {dim: 0, replicated: true}",
            "rules.0.steps.0.merge_shards does not fit the schema",
        ),
        ("split_qkv", "rules.0.steps.0 does not fit the schema"),
        (
            "split_qkv: {layout: by_head, heads: 1, head_dim: 1}",
            "rules.0.steps.0.split_qkv.layout does not fit the schema",
        ),
        (
            "permute_rope: {to: interleaved, heads: 1, head_dim: 2}",
            "rules.0.steps.0.permute_rope lacks the field 'from'",
        ),
        (
            "rearrange: {pattern: a -> a, sizes: [1]}",
            "rules.0.steps.0.rearrange.sizes does not fit the schema",
        ),
        ("rearrange: {pattern: a}", "rules.0.steps.0.rearrange.pattern does not fit the schema"),
        ("scale: {by: hidden}", "rules.0.steps.0.scale.by does not fit the schema"),
    ],
)
def test_a_step_with_other_parameters_is_refused(step: str, what: str) -> None:
    finding = fault(f"""
        rules:
          - from: a
            steps:
              - {step}
            to: {{b: [1]}}
        """)
    assert finding.what == what
    assert finding.where == "tiny.yaml:4"


def test_a_float_is_no_integer_whatever_its_value() -> None:
    found = faults("""
        dims:
          layers: 13.0
          rates: [4, 2.0]
        rules:
          - from: a
            to: {b: [8, 4.0]}
        """)
    assert [finding.where for finding in found] == ["tiny.yaml:2", "tiny.yaml:3", "tiny.yaml:6"]
    assert [finding.got for finding in found] == ["13.0", "2.0", "4.0"]


def test_a_boolean_is_no_integer() -> None:
    assert fault("dims: {layers: true}").got == "True"


@pytest.mark.parametrize(
    ("body", "where", "expected"),
    [
        ("format: 2", 1, "1"),
        ("model: My Model", 1, "a model's name: lower-case letters, digits and -; the file's name"),
        ("dims: {hidden: -1}", 1, "at least 0"),
        ("dtypes: []", 1, "at least 1"),
        ("dtypes: [F32, F32]", 1, "each only once"),
        ("index:\n  i: 3..", 2, "a length n for 0 to n - 1, or first..last, both included"),
        ("index:\n  i: 1..2..3", 2, "a length n for 0 to n - 1, or first..last, both included"),
        ("index:\n  i: -1", 2, "at least 0"),
        ("sets:\n  p: []", 2, "at least 1"),
        ("rules: []", 1, "at least 1"),
        ("rules:\n  - from: []\n    to: {b: [1]}", 2, "at least 1"),
        ("rules:\n  - from: a\n    to: {}", 3, "at least 1"),
        ("drop:\n  - name: x\n    because: ' '", 3, "a reason, in a few words"),
        ("audio:\n  window: hanning", 2, None),
        ("conventions:\n  rope_base: 0", 2, "0 is less than or equal to the minimum of 0"),
        ("audio:\n  sample_rate: fast", 2, "integer"),
    ],
)
def test_a_value_of_another_form_is_refused_where_it_stands(
    body: str, where: int, expected: str | None
) -> None:
    finding = fault(body)
    assert finding.code == "field"
    assert finding.where == f"tiny.yaml:{where}"
    if expected is not None:
        assert finding.expected == expected


@pytest.mark.parametrize("section", ["dims", "derived", "index", "sets", "words"])
def test_a_word_of_the_expression_language_is_no_name(section: str) -> None:
    finding = fault(f"""
        {section}:

          len: {"[x]" if section == "sets" else "x" if section == "words" else 1}
        """)
    assert finding.where == "tiny.yaml:3"
    assert finding.got == "'len'"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("rules:\n  - to: {b: [1]}", "rules.0 lacks the field 'from'"),
        ("rules:\n  - from: a", "rules.0 lacks the field 'to'"),
        ("drop:\n  - name: a", "drop.0 lacks the field 'because'"),
        ("alias:\n  - {name: x, of: b}", "alias.0 lacks the field 'because'"),
        ("require:\n  - that: 1 == 1", "require.0 lacks the field 'because'"),
        ("scope: {only: [x]}", "scope lacks the field 'except'"),
        ("conventions: {ropes: none}", "conventions has no field 'ropes'"),
        ("audio: {mels: 80}", "audio has no field 'mels'"),
        ("variants: {size: {big: {steps: []}}}", "variants.size.big has no field 'steps'"),
    ],
)
def test_each_part_says_which_field_is_wrong(body: str, what: str) -> None:
    assert what in [finding.what for finding in faults(body)]


def test_a_rule_without_sources_begins_with_a_constant() -> None:
    rule_file = parsed("""
        rules:
          - steps:
              - constant: {value: 0, shape: [2], dtype: F32}
            to: {b: [2]}
        """)
    assert rule_file.rules[0].sources == ()


def test_all_faults_of_structure_are_listed_in_the_order_of_lines() -> None:
    found = faults("""
        dtypes: [F23]
        dims: {a: x}
        rules:
          - from: a
            too: {b: [1]}
        """)
    assert [finding.where for finding in found] == [f"tiny.yaml:{n}" for n in (1, 2, 4, 5)]


def test_a_fault_reads_as_one_line_of_fact_and_its_slots() -> None:
    with pytest.raises(RuleError) as caught:
        parsed("dtypes: [F23]")
    assert finding_of(caught.value).render().splitlines()[0] == (
        "tiny.yaml:1: dtypes.0 does not fit the schema"
    )
