import pytest
from lint_bodies import found, linted, only

AUDIO = "sample_rate: 8000, hop_length: 4, window: povey, mel_scale: htk, mel_norm: none, log: none"


@pytest.mark.parametrize(
    ("stated", "needed"),
    [
        ("conventions: {position_embedding: rope}", "rope"),
        ("conventions: {position_embedding: relative_key}", "relative_distance"),
        ("conventions: {rope: half_split}", "rope_base"),
        ("conventions: {rope_base: 10000}", "rope"),
        ("conventions: {norm: layer_norm}", "norm_eps"),
        ("conventions: {norm: group_norm, norm_eps: 1e-5}", "norm_groups"),
        ("conventions: {activation: snake_beta, activation_eps: 1e-9}", "activation_parameters"),
        ("conventions: {activation_oversampling: 2}", "activation_padding"),
        (f"audio: {{n_fft: 16, {AUDIO.replace('window: povey, ', '')}}}", "window"),
        (f"audio: {{n_mels: 8, {AUDIO.replace(', log: none', '')}}}", "log"),
        (f"audio: {{n_fft: 16, spectrum: magnitude, {AUDIO}}}", "magnitude_eps"),
        ("audio: {normalize: mean_std}", "normalize_eps"),
    ],
)
def test_a_fact_that_another_calls_for_is_missed(stated: str, needed: str) -> None:
    finding = only(stated)
    assert finding.code == "convention"
    assert finding.expected is not None
    assert finding.expected.startswith(f"{needed}, which ")


@pytest.mark.parametrize(
    "stated",
    [
        "conventions: {rope: none}",
        "conventions: {norm_eps: 1e-5}",
        "conventions: {activation: silu}",
        f"audio: {{n_mels: 8, n_fft: 16, spectrum: power, normalize: mean, {AUDIO}}}",
    ],
)
def test_facts_that_stand_alone_are_no_fault(stated: str) -> None:
    assert found(stated) == []


@pytest.mark.parametrize(
    ("targets", "needed"),
    [
        ("{x.q_proj.weight: [2], x.k_proj.weight: [2]}", "attention"),
        ("{x.qkv_proj.weight: [2], y: [2]}", "qkv_order"),
        ("{x.query_key_value.weight: [2], y: [2]}", "qkv_order"),
        ("{x.gate_up_proj.weight: [2], y: [2]}", "glu"),
    ],
)
def test_names_of_targets_call_for_facts_where_any_are_stated(targets: str, needed: str) -> None:
    rules = f"rules: [{{from: a, steps: [{{chunk: {{dim: 0, chunks: 2}}}}], to: {targets}}}]"
    assert found(rules) == []
    finding = only("conventions: {activation: silu}\n" + rules)
    assert finding.what == f"conventions do not say {needed}"


def test_attention_of_an_encoder_or_a_decoder_is_attention() -> None:
    body = """
        conventions: {encoder_attention: bidirectional}
        rules: [{from: a, to: {x.q_proj.weight: [2]}}, {from: b, to: {x.k_proj.weight: [2]}}]
        """
    assert found(body) == []


def test_a_step_for_rotary_embedding_calls_for_its_layout() -> None:
    body = """
        conventions: {}
        rules:
          - from: a
            steps: [{permute_rope: {from: interleaved, to: half_split, heads: 2, head_dim: 4}}]
            to: {b: [8, 4]}
        """
    finding = only(body)
    assert (finding.code, finding.where) == ("convention", "tiny.yaml:4")
    assert found(body.replace("{}", "{rope: half_split, rope_base: 10000}")) == []


def test_conventions_of_a_variant_count_under_it() -> None:
    body = """
        conventions: {activation: silu}
        variants: {v: {plain: {}, normed: {conventions: {activation: snake_beta}}}}
        """
    codes = {finding.expected for finding in linted(body).findings}
    assert {text.partition(",")[0] for text in codes if text} == {
        "activation_eps",
        "activation_parameters",
    }
