"""The rule files that come with the package, on the headers of what they were written for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from converter import api, resources
from converter.bind import bind
from converter.dims import read_dims
from converter.errors import PlanError
from converter.manifest import Dim
from converter.plan import Plan
from converter.rules.expand import expand
from converter.rules.settings import Settings, choices, resolve
from converter.spec import Header, TensorSpec

HERE = Path(__file__).parent
MODELS = sorted(resources.rule_files())


@dataclass(frozen=True)
class Case:
    """One model on one source: how many of its tensors are used, dropped, out of scope, made."""

    model: str
    source: str
    counts: tuple[int, int, int, int]
    variant: Sequence[str] = ()
    scope: str | None = None
    source_prefix: str = ""
    dims: str | None = None
    aliases: int = 0

    def __str__(self) -> str:
        return "-".join([self.model, self.source, *self.variant])

    def plan(self) -> Plan:
        golden = HERE / "golden" / self.source / "checkpoint.safetensors"
        dims = {}
        if self.dims:
            dims = read_dims(HERE / "models" / self.model / f"{self.dims}.yaml", [])
        return api.plan(
            golden if self.dims else HERE / "headers" / f"{self.source}.json",
            model=self.model,
            variant=self.variant,
            dims=dims,
            scope=self.scope,
            source_prefix=self.source_prefix,
        )


FULL_SIZE = [
    Case("dit", "s2mel", (239, 17, 28, 246), source_prefix="net."),
    Case("length-regulator", "s2mel", (20, 2, 262, 20), source_prefix="net."),
    Case("gpt-layer", "s2mel", (6, 0, 278, 6), source_prefix="net."),
    Case("bigvgan", "bigvgan_generator", (783, 0, 0, 667)),
    Case("campplus", "campplus_cn_common", (815, 122, 0, 815)),
    Case("perceiver", "indextts2-gpt", (18, 0, 647, 24)),
    Case("perceiver", "indextts2-gpt", (18, 0, 647, 24), ["emotion"]),
    Case("conformer", "indextts2-gpt", (193, 0, 472, 193)),
    Case("conformer", "indextts2-gpt", (131, 0, 534, 131), ["emotion"]),
    Case("gpt", "indextts2-gpt", (305, 0, 360, 401)),
    Case("wav2vec-bert", "w2v-bert-2.0", (772, 1, 0, 772)),
    Case("wav2vec-bert", "w2v-bert-2.0", (548, 225, 0, 548), ["layers-17"]),
    Case("wav2vec-bert-stats", "wav2vec2bert_stats", (2, 0, 0, 2)),
    Case("gpt2", "gpt2", (148, 12, 0, 196), aliases=1),
    Case("gpt-neox", "pythia-70m", (76, 18, 0, 100)),
    Case("bert", "all-minilm-l6-v2", (103, 1, 0, 103)),
    Case("bert", "all-minilm-l6-v2", (101, 3, 0, 101), ["bare", "drop"]),
    Case(
        "bert", "bert-base-uncased", (206, 0, 0, 206), ["base", "legacy", "pretraining"], aliases=1
    ),
    Case(
        "bert",
        "bert-base-uncased",
        (202, 4, 0, 202),
        ["base", "legacy", "masked-lm", "drop"],
        aliases=1,
    ),
    Case(
        "bert", "bert-base-uncased", (201, 5, 0, 201), ["base", "legacy", "next-sentence", "drop"]
    ),
    Case("bert", "bert-base-uncased", (199, 7, 0, 199), ["base", "legacy", "drop"]),
    Case("bert", "bert-base-uncased", (197, 9, 0, 197), ["base", "legacy", "bare", "drop"]),
    Case(
        "bert",
        "bert-base-uncased.pytorch_model",
        (206, 1, 0, 206),
        ["base", "legacy", "pretraining"],
        aliases=1,
    ),
    Case("semantic-codec", "semantic_codec", (239, 0, 0, 237)),
    Case("semantic-codec", "semantic_codec", (123, 116, 0, 121), ["inference"]),
    Case("soprano-decoder", "soprano-1.1-80m-decoder", (81, 0, 0, 81)),
    Case("soprano-lm", "soprano-1.1-80m-lm", (190, 0, 0, 190)),
    Case("whisper", "whisper-tiny", (167, 0, 0, 167), aliases=1),
    Case("whisper", "whisper-large-v3", (1259, 0, 0, 1259), ["large-v3"], aliases=1),
    Case(
        "whisper",
        "whisper-large-v3-turbo.openai",
        (587, 0, 0, 587),
        ["large-v3-turbo", "openai"],
        aliases=1,
    ),
]

GOLDEN_DIMS, SPEAKER, EMOTION = "golden-dims", "golden-gpt-speaker-dims", "golden-gpt-emotion-dims"

GOLDEN = [
    Case("dit", "s2mel", (113, 9, 28, 114), source_prefix="net.", dims=GOLDEN_DIMS),
    Case("length-regulator", "s2mel", (20, 2, 128, 20), source_prefix="net.", dims=GOLDEN_DIMS),
    Case("gpt-layer", "s2mel", (6, 0, 144, 6), source_prefix="net.", dims=GOLDEN_DIMS),
    Case("bigvgan", "bigvgan", (396, 0, 0, 337), dims=GOLDEN_DIMS),
    Case("campplus", "campplus", (815, 122, 0, 815), dims=GOLDEN_DIMS),
    Case("perceiver", "perceiver", (18, 0, 0, 24), scope="", dims=GOLDEN_DIMS),
    Case("perceiver", "gpt", (18, 0, 166, 24), dims=SPEAKER),
    Case("perceiver", "gpt", (18, 0, 166, 24), ["emotion"], dims=EMOTION),
    Case("conformer", "conformer", (69, 0, 0, 69), scope="", dims=GOLDEN_DIMS),
    Case("conformer", "gpt", (69, 0, 115, 69), dims=SPEAKER),
    Case("conformer", "gpt", (38, 0, 146, 38), ["emotion"], dims=EMOTION),
    Case("gpt", "gpt", (41, 0, 143, 49), dims=GOLDEN_DIMS),
    Case("wav2vec-bert", "wav2vec-bert", (580, 1, 0, 580), dims=GOLDEN_DIMS),
    Case(
        "wav2vec-bert",
        "wav2vec-bert",
        (548, 33, 0, 548),
        ["layers-17"],
        dims="golden-layers-17-dims",
    ),
    Case("gpt-neox", "gpt-neox", (28, 6, 0, 36), dims=GOLDEN_DIMS),
    Case("gpt2", "gpt2", (28, 0, 0, 36), ["saved"], dims=GOLDEN_DIMS, aliases=1),
    Case("gpt2", "gpt2-hub-layout", (28, 2, 0, 36), dims=GOLDEN_DIMS, aliases=1),
    Case("bert", "bert", (46, 0, 0, 46), ["legacy", "pretraining"], dims=GOLDEN_DIMS, aliases=1),
    Case("semantic-codec", "semantic_codec", (77, 0, 0, 75), dims=GOLDEN_DIMS),
    Case("soprano-decoder", "soprano-decoder", (27, 0, 0, 27), dims=GOLDEN_DIMS),
    Case("soprano-lm", "soprano-lm", (25, 0, 0, 25), dims=GOLDEN_DIMS),
    Case("whisper", "whisper", (113, 0, 0, 113), dims=GOLDEN_DIMS, aliases=1),
    Case(
        "whisper",
        "whisper-openai-layout",
        (89, 0, 0, 89),
        ["openai"],
        dims="golden-openai-dims",
        aliases=1,
    ),
]


@pytest.mark.parametrize("case", FULL_SIZE, ids=str)
def test_a_model_accounts_for_every_tensor_of_its_checkpoint(case: Case) -> None:
    plan = case.plan()
    assert (plan.used, len(plan.dropped), plan.out_of_scope, len(plan.targets)) == case.counts
    assert len(plan.aliases) == case.aliases


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_a_model_of_golden_size_accounts_for_every_tensor_of_its_checkpoint(case: Case) -> None:
    plan = case.plan()
    assert (plan.used, len(plan.dropped), plan.out_of_scope, len(plan.targets)) == case.counts
    assert len(plan.aliases) == case.aliases


def test_every_model_has_its_full_size_header() -> None:
    assert sorted({case.model for case in FULL_SIZE}) == MODELS


@pytest.mark.parametrize("model", MODELS)
def test_a_rule_file_goes_by_the_name_of_its_model_and_has_no_fault(model: str) -> None:
    assert api.model(model).model == model
    assert api.lint(resources.rule_file(model)) == ()


def test_the_copies_that_fine_tuning_leaves_are_dropped_and_to_be_proven() -> None:
    full = api.inspect(HERE / "headers" / "indextts2-gpt.json").header
    extra = api.inspect(HERE / "headers" / "indextts2-gpt.runtime-only.json").header
    rule_file = api.model("gpt")
    plan = bind(rule_file, {**full, **extra}, resolve(rule_file))
    assert len(plan.dropped) == 300
    assert {dropped.expect for dropped in plan.dropped} == {"equals"}


def test_gpt2_as_it_is_saved_has_a_prefix_and_no_masks() -> None:
    hub = api.inspect(HERE / "headers" / "gpt2.json").header
    saved = {f"transformer.{n}": spec for n, spec in hub.items() if not n.endswith(".attn.bias")}
    rule_file = api.model("gpt2")
    plan = bind(rule_file, saved, resolve(rule_file, variant=["saved"]))
    assert (plan.used, len(plan.targets)) == (148, 196)


def test_a_perceiver_of_equal_widths_has_no_projection_of_its_context() -> None:
    full = api.inspect(HERE / "headers" / "indextts2-gpt.json").header
    equal = {
        name: spec
        for name, spec in full.items()
        if name.startswith("perceiver_encoder.") and "proj_context" not in name
    }
    rule_file = api.model("perceiver")
    assert bind(rule_file, equal, resolve(rule_file, dims={"context": 1280})).used == 16
    with pytest.raises(PlanError, match=r"perceiver_encoder\.proj_context\.weight"):
        bind(rule_file, equal, resolve(rule_file))


def synthesized(model: str, settings: Settings) -> Header:
    """Return the header that a checkpoint of this model would have, as its rules say."""
    expansion = expand(api.model(model), settings)
    header = {
        name: TensorSpec("F32", shape)
        for unit in expansion.units
        for name, shape in zip(unit.sources, unit.form.source_shapes or (), strict=True)
    }
    for drop in expansion.drops:
        if not drop.drop.optional:
            header[drop.name] = TensorSpec("F32", (1,))
    return header


@dataclass(frozen=True)
class Size:
    """A model of other dims, how many canonical tensors it has, and the shapes of some."""

    model: str
    dims: str
    count: int
    shapes: Mapping[str, list[int]]

    def __str__(self) -> str:
        return self.model


SIZES = [
    Size(
        "dit",
        "layers=6 hidden=64 heads=4 mels=20 style=24 content=40 timestep_freqs=16 "
        "wavenet_hidden=64 wavenet_layers=2",
        33 + 6 * 13 + 2 * 2 + 2 * 4,  # blocks, two of them with a skip, and WaveNet layers
        {
            "timestep_embedder.fc1.weight": [64, 32],
            "cond_proj.weight": [64, 40],
            "input_merge.weight": [64, 20 + 20 + 64 + 24],
            "blocks.5.attention.q_proj.weight": [64, 64],
            "blocks.4.skip_proj.weight": [64, 128],
            "blocks.0.ffn.gate_proj.weight": [256, 64],
            "long_skip_proj.weight": [64, 84],
            "wavenet.cond_layer.weight": [256, 64, 1],
            "wavenet.res_skip_layers.0.weight": [128, 64, 1],
            "wavenet.res_skip_layers.1.weight": [64, 64, 1],
            "out_conv.weight": [20, 64, 1],
        },
    ),
    Size(
        "bigvgan",
        "mels=20 channels=64 rates=4,2 kernels=8,4 resblock_kernels=3, dilations=[[1,3]]",
        7 + 2 * 2 + 2 * (4 * 4 + 4 * 2),  # two stages of 4 activations and 4 convolutions
        {
            "input_conv.weight": [64, 20, 7],
            "stages.0.upsample.weight": [64, 32, 8],
            "stages.1.upsample.weight": [32, 16, 4],
            "stages.1.blocks.0.convs2.1.weight": [16, 16, 3],
            "stages.0.blocks.0.activations.3.alpha": [32],
            "out_conv.weight": [1, 16, 7],
        },
    ),
    Size(
        "campplus",
        "feat=16 embedding=24 growth=4 bn_size=2 init=8 head_blocks=1,2 block_layers=2,1,3",
        161,
        {
            "tdnn.conv.weight": [8, 32 * 2, 5],
            "blocks.0.layers.1.in_proj.weight": [8, 8 + 4, 1],
            "blocks.0.transition.conv.weight": [8, 16, 1],
            "blocks.1.transition.conv.weight": [6, 12, 1],
            "blocks.2.layers.2.norm1.weight": [6 + 2 * 4],
            "embedding.conv.weight": [24, 2 * 9, 1],
        },
    ),
    Size(
        "perceiver",
        "layers=3 hidden=30 context=20 latents=5 heads=3 dim_head=8",
        4 + 3 * 10,
        {
            "context_proj.weight": [30, 20],
            "latents": [5, 30],
            "layers.2.attention.k_proj.weight": [24, 30],
            "layers.2.ffn.gate_proj.weight": [40, 30],
            "layers.2.ffn.down_proj.weight": [30, 40],
        },
    ),
    Size(
        "conformer",
        "layers=2 hidden=16 heads=2 ffn=24 input=12 positions=9",
        7 + 2 * 31,
        {
            "input_proj.weight": [16, 16 * 5],
            "position_table": [1, 9, 16],
            "layers.1.attention.pos_bias_u": [2, 8],
            "layers.1.conv.in_proj.weight": [32, 16, 1],
            "layers.1.ffn.fc1.weight": [24, 16],
        },
    ),
    Size(
        "gpt",
        "layers=2 hidden=16 heads=2 text_tokens=11 mel_codes=9 start_mel=7 stop_mel=8 "
        "mel_positions=13 semantic=6",
        17 + 2 * 16,
        {
            "emotion_in_proj.weight": [16, 6],
            "mel_position_embedding.weight": [13, 16],
            "layers.1.attention.v_proj.weight": [16, 16],
            "layers.1.ffn.fc1.weight": [64, 16],
            "text_head.weight": [11, 16],
        },
    ),
    Size(
        "gpt2",
        "layers=2 hidden=16 heads=2 ffn=40 vocab=30 positions=7",
        4 + 2 * 16,
        {
            "token_embedding.weight": [30, 16],
            "position_embedding.weight": [7, 16],
            "layers.1.attention.q_proj.bias": [16],
            "layers.1.ffn.fc1.weight": [40, 16],
            "layers.1.ffn.fc2.weight": [16, 40],
        },
    ),
    Size(
        "gpt-neox",
        "layers=2 hidden=24 heads=3 ffn=40 vocab=30 rotary_percent=50",
        4 + 2 * 16,
        {
            "token_embedding.weight": [30, 24],
            "layers.1.attention.k_proj.weight": [24, 24],
            "layers.1.attention.v_proj.bias": [24],
            "layers.0.ffn.fc2.weight": [24, 40],
            "lm_head.weight": [30, 24],
        },
    ),
    Size(
        "wav2vec-bert",
        "layers=3 used_layers=2 hidden=16 heads=4 ffn=20 input=12 left_positions=4 "
        "right_positions=2 conv_kernel=5",
        4 + 2 * 32,
        {
            "input_proj.weight": [16, 12],
            "layers.1.ffn2.fc2.weight": [16, 20],
            "layers.1.attention.distance_embedding.weight": [7, 4],
            "layers.1.conv.depthwise.weight": [16, 1, 5],
        },
    ),
    Size("wav2vec-bert-stats", "hidden=7", 2, {"mean": [7], "var": [7]}),
    Size(
        "bert",
        "layers=2 hidden=16 heads=2 ffn=24 vocab=30 positions=9 token_types=3 "
        "mlm_head=1 nsp_head=1",
        5 + 2 * 16 + 2 + 5 + 2,
        {
            "token_embedding.weight": [30, 16],
            "token_type_embedding.weight": [3, 16],
            "layers.1.ffn.fc1.weight": [24, 16],
            "mlm_head.decoder.bias": [30],
            "nsp_head.weight": [2, 16],
        },
    ),
    Size(
        "length-regulator",
        "layers=2 channels=8 input=5 kernel=5",
        4 + 2 * 4,
        {"input_proj.weight": [8, 5], "layers.1.conv.weight": [8, 8, 5], "out_conv.bias": [8]},
    ),
    Size(
        "gpt-layer",
        "widths=5,4,3",
        4,
        {"layers.0.weight": [4, 5], "layers.1.weight": [3, 4], "layers.1.bias": [3]},
    ),
    Size(
        "semantic-codec",
        "layers=2 hidden=10 width=6 ffn=12 codes=7 codebook_dim=3",
        2 * (8 + 2 * 9) + 5,
        {
            "encoder.input_conv.weight": [6, 10, 7],
            "encoder.blocks.1.fc1.weight": [12, 6],
            "quantizer.codebook.weight": [7, 3],
            "quantizer.out_proj.weight": [10, 3, 1],
            "decoder.out_proj.weight": [10, 6],
        },
    ),
    Size(
        "soprano-decoder",
        "layers=2 hidden=6 input=5 ffn=9 n_fft=16 hop_length=4",
        9 + 2 * 9,
        {
            "input_conv.weight": [6, 5, 1],
            "blocks.1.fc1.weight": [9, 6],
            "spectral_head.weight": [2 * 9, 6],
            "window": [16],
        },
    ),
    Size(
        "soprano-lm",
        "layers=2 hidden=12 heads=4 kv_heads=2 head_dim=6 ffn=10 vocab=20",
        3 + 2 * 11,
        {
            "token_embedding.weight": [20, 12],
            "layers.1.attention.q_proj.weight": [24, 12],
            "layers.1.attention.k_proj.weight": [12, 12],
            "layers.1.attention.q_norm.weight": [6],
            "layers.1.ffn.down_proj.weight": [12, 10],
        },
    ),
    Size(
        "whisper",
        "encoder_layers=3 decoder_layers=2 hidden=12 encoder_heads=3 decoder_heads=2 "
        "encoder_ffn=20 decoder_ffn=30 mels=5 encoder_positions=7 decoder_positions=8 vocab=40",
        11 + 3 * 15 + 2 * 24,
        {
            "encoder.conv1.weight": [12, 5, 3],
            "encoder.position_table": [7, 12],
            "encoder.layers.2.ffn.fc1.weight": [20, 12],
            "decoder.token_embedding.weight": [40, 12],
            "decoder.position_embedding.weight": [8, 12],
            "decoder.layers.1.cross_attention.k_proj.weight": [12, 12],
            "decoder.layers.1.ffn.fc2.weight": [12, 30],
        },
    ),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_shapes_of_a_model_follow_its_dims(size: Size) -> None:
    rule_file = api.model(size.model)
    settings = resolve(rule_file, dims=read_dims(None, size.dims.split()))
    plan = bind(rule_file, synthesized(size.model, settings), settings)
    found = {name: list(spec.shape) for name, spec in plan.targets.items()}
    assert {name: found[name] for name in size.shapes} == size.shapes
    assert len(found) == size.count


def test_every_model_is_tried_in_another_size() -> None:
    assert sorted(size.model for size in SIZES) == MODELS


@pytest.mark.parametrize("model", MODELS)
def test_every_variant_plans_on_the_header_that_its_rules_say(model: str) -> None:
    rule_file = api.model(model)
    for variant in choices(rule_file):
        settings = resolve(rule_file, variant=variant)
        plan = bind(rule_file, synthesized(model, settings), settings)
        assert plan.out_of_scope == 0
        assert plan.targets


@pytest.mark.parametrize("model", [m for m in MODELS if "layers" in api.model(m).dims])
def test_a_layer_too_many_is_unexpected(model: str) -> None:
    rule_file = api.model(model)
    settings = resolve(rule_file)
    layers = settings.dims["layers"]
    assert isinstance(layers, int)
    fewer: dict[str, Dim] = dict.fromkeys(("layers", "used_layers"), layers - 1)
    dims = {name: value for name, value in fewer.items() if name in rule_file.dims}
    with pytest.raises(PlanError) as caught:
        bind(rule_file, synthesized(model, settings), resolve(rule_file, dims=dims))
    assert "unexpected" in {finding.code for finding in caught.value.findings}
