import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import torch
from bundles import (
    FILES,
    HEADERS,
    PREFIXES,
    Headers,
    contents,
    convert_small,
    plan_on_headers,
    read_headers,
    shipped_on_headers,
    small_tensors,
    write_small,
)
from click.testing import CliRunner

from converter import api, resources
from converter.bundle import BundlePlan
from converter.cli import main
from converter.errors import (
    ConverterError,
    ExecutionError,
    PlanError,
    SourceError,
    UsageError,
    ValueRefusedError,
)
from converter.manifest import Dim

SOURCES = [(bundle, source) for bundle, sources in HEADERS.items() for source in sources]
COUNTS = {
    "w2v": 773,
    "stats": 2,
    "codec": 239,
    "gpt": 665,
    "s2mel": 284,
    "campplus": 937,
    "bigvgan": 783,
    "lm": 190,
    "decoder": 81,
}


def refusal(folder: Path, bundle: str, change: Callable[[Headers], object]) -> ConverterError:
    with pytest.raises(ConverterError) as caught:
        plan_on_headers(bundle, folder, change)
    return caught.value


def named(error: ConverterError) -> str:
    """Return all tensors that the findings of an error name."""
    return " ".join(finding.tensor or "" for finding in error.findings)


# The shipped bundles, on full-size headers


@pytest.fixture(scope="module", params=HEADERS)
def plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BundlePlan:
    return plan_on_headers(request.param, tmp_path_factory.mktemp("headers"))


def test_members_take_or_drop_every_tensor_of_every_source_once(plan: BundlePlan) -> None:
    bundle_file = plan.bundle_file
    for source, header in read_headers(bundle_file.bundle).items():
        claimed = [t for m in bundle_file.members_of(source) for t in plan.plans[m].claimed]
        assert sorted(claimed) == sorted(header)
        assert len(claimed) == COUNTS[source]


def test_every_condition_holds_and_is_recorded_with_its_values(plan: BundlePlan) -> None:
    assert len(plan.agreed) == len(plan.bundle_file.agree)
    for agreed in plan.agreed:
        assert len(agreed.values) >= 2 or "latents" in agreed.that


@pytest.mark.parametrize(("bundle", "source"), SOURCES)
def test_a_renamed_tensor_is_named_whatever_its_source(
    bundle: str, source: str, tmp_path: Path
) -> None:
    old = max(read_headers(bundle)[source])

    def rename(headers: Headers) -> None:
        headers[source][f"another.{old}"] = headers[source].pop(old)

    error = refusal(tmp_path, bundle, rename)
    assert error.exit_code == 5
    assert {finding.tensor for finding in error.findings} == {old, f"another.{old}"}


@pytest.mark.parametrize(("bundle", "source"), SOURCES)
def test_added_tensors_are_named_whatever_their_source(
    bundle: str, source: str, tmp_path: Path
) -> None:
    added = {"beyond.all.scopes", f"{min(read_headers(bundle)[source])}.more"}

    def add(headers: Headers) -> None:
        headers[source] |= {name: {"dtype": "F32", "shape": [3]} for name in added}

    error = refusal(tmp_path, bundle, add)
    assert error.exit_code == 5
    assert {name for f in error.findings for name in str(f.tensor).split(", ")} == added


def test_every_source_that_fails_is_reported_in_one_run(tmp_path: Path) -> None:
    def add(headers: Headers) -> None:
        for header in headers.values():
            header["beyond"] = {"dtype": "F32", "shape": [3]}

    found = [finding.tensor for finding in refusal(tmp_path, "indextts2", add).findings]
    assert found == ["beyond"] * 7


def test_a_vocoder_of_other_bins_is_refused_with_both_sides_named(tmp_path: Path) -> None:
    headers = read_headers("indextts2")
    headers["bigvgan"]["generator.conv_pre.weight_v"]["shape"][1] = 100
    text = resources.bundle_file("indextts2").read_text()
    text = text.replace("model: bigvgan}", "model: bigvgan, dims: {mels: 100}}")
    path = shipped_on_headers("indextts2", tmp_path, headers, text)
    with pytest.raises(PlanError) as caught:
        api.plan_bundle(str(path), tmp_path, source_prefixes=PREFIXES["indextts2"])
    assert [(finding.code, finding.got) for finding in caught.value.findings] == [
        ("agree", "dit.audio.n_mels = 80, vocoder.audio.n_mels = 100"),
        ("agree", "dit.mels = 80, vocoder.mels = 100"),
    ]
    assert str(caught.value.findings[0].where).startswith(f"{path}:")


@pytest.mark.parametrize(
    ("dims", "got"),
    [
        ({"gpt": {"mel_codes": 8195}}, "codec.codes = 8192, gpt.mel_codes = 8195"),
        ({"gpt_layer": {"widths": [1280, 256, 128, 512]}}, "codec.hidden = 1024, gpt_layer.widths"),
        ({"campplus": {"embedding": 256}}, "campplus.embedding = 256, dit.style = 192"),
        ({"w2v_stats": {"hidden": 512}}, "w2v.hidden = 1024, w2v_stats.hidden = 512"),
    ],
)
def test_members_that_do_not_agree_are_named_beside_what_does_not_fit(
    dims: dict[str, dict[str, Dim]], got: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError) as caught:
        plan_on_headers("indextts2", tmp_path, dims=dims)
    found = {finding.code: finding for finding in caught.value.findings}
    assert got in str(found["agree"].got)
    assert found.keys() > {"agree"}


def test_a_tensor_that_two_members_claim_is_refused(tmp_path: Path) -> None:
    text = resources.bundle_file("indextts2").read_text()
    text = text.replace("agree:", "  again: {source: s2mel, model: gpt-layer}\n\nagree:", 1)
    path = shipped_on_headers("indextts2", tmp_path, read_headers("indextts2"), text)
    with pytest.raises(PlanError) as caught:
        api.plan_bundle(str(path), tmp_path, source_prefixes=PREFIXES["indextts2"])
    (finding,) = caught.value.findings
    assert (finding.code, finding.got) == ("claimed-twice", "gpt_layer and again")
    assert finding.tensor == "net.gpt_layer.{0..2}.weight, net.gpt_layer.{0..2}.bias"


def test_a_member_left_out_leaves_its_tensors_unclaimed(tmp_path: Path) -> None:
    text = resources.bundle_file("indextts2").read_text()
    kept = [line for line in text.splitlines(keepends=True) if "length_regulator" not in line]
    text = "".join(
        line for line in kept if "that sum" not in line and "regulated content" not in line
    )
    path = shipped_on_headers("indextts2", tmp_path, read_headers("indextts2"), text)
    with pytest.raises(PlanError) as caught:
        api.plan_bundle(str(path), tmp_path, source_prefixes=PREFIXES["indextts2"])
    assert {finding.code for finding in caught.value.findings} == {"unclaimed"}
    assert "net.length_regulator.mask_token" in named(caught.value)


def test_a_prefix_that_is_not_given_is_hinted_at_as_a_bundle_takes_it(tmp_path: Path) -> None:
    path = shipped_on_headers("indextts2", tmp_path, read_headers("indextts2"))
    with pytest.raises(PlanError) as caught:
        api.plan_bundle(str(path), tmp_path)
    hints = {finding.hint for finding in caught.value.findings}
    assert len(caught.value.findings) == 3
    assert hints == {"the names of the source begin with 'net.': add --source-prefix s2mel=net."}


def test_all_sources_that_are_missing_are_listed_beside_what_else_is_wrong(tmp_path: Path) -> None:
    dims = {"vocoder": {"mels": 100}}
    with pytest.raises(SourceError) as caught:
        api.plan_bundle("indextts2", tmp_path, dims=dims)
    codes = [finding.code for finding in caught.value.findings]
    assert codes == ["agree", "agree", *["absent"] * 7]
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("options", "what", "hint"),
    [
        ({"dims": {"vocodr": {"mels": 1}}}, "no member 'vocodr'", "did you mean 'vocoder'?"),
        ({"dims": {"dit": {"layer": 1}}}, "dit: dit has no dim 'layer'", "did you mean 'layers'?"),
        ({"source_prefixes": {"s2ml": "net."}}, "no source 's2ml'", "did you mean 's2mel'?"),
    ],
)
def test_what_the_caller_names_must_exist(
    options: dict[str, dict[str, dict[str, Dim]]], what: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        api.plan_bundle("indextts2", tmp_path, **options)  # type: ignore[arg-type]
    assert what in caught.value.findings[0].what
    assert caught.value.findings[0].hint == hint


def test_dims_of_the_caller_that_break_a_requirement_name_the_member(tmp_path: Path) -> None:
    dims = {"speaker_conformer": {"heads": 7}, "emotion_conformer": {"heads": 3}}
    with pytest.raises(PlanError) as caught:
        plan_on_headers("indextts2", tmp_path, dims=dims)
    whats = [finding.what.partition(":")[0] for finding in caught.value.findings]
    assert whats == ["speaker_conformer", "emotion_conformer"]
    assert "--set speaker_conformer.DIM=N" in str(caught.value.findings[0].hint)


# The command line


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def answer(*arguments: str | Path) -> dict[str, object]:
    """Return what a command answers with --json, which satisfies the schema."""
    document = json.loads(run(*arguments, "--json")[1])
    jsonschema.validate(document, resources.schema("report"))
    assert isinstance(document, dict)
    return document


def test_a_plan_on_the_command_line_shows_every_member(tmp_path: Path) -> None:
    path = shipped_on_headers("soprano", tmp_path, read_headers("soprano"))
    code, text = run("plan", "--bundle", path, tmp_path)
    assert code == 0
    assert "every tensor of every source has its member" in text
    assert "agreed   lm.hidden == decoder.input" in text
    table = run("plan", "--bundle", path, tmp_path, "--table")[1]
    assert "head.istft.window F32 [2048]" in table
    assert "head.istft.window" not in text
    assert answer("plan", "--bundle", path, tmp_path)["ok"] is True


@pytest.mark.parametrize(
    "option", [("--model", "dit"), ("--scope", ""), ("--variant", "full"), ("--dtype", "bf16")]
)
def test_options_of_one_model_do_not_apply(option: tuple[str, str], tmp_path: Path) -> None:
    code, text = run("plan", "--bundle", "soprano", tmp_path, *option)
    assert code == 2
    assert f"{option[0]} does not apply to a bundle" in text


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--set", "layers=2"), "a dim of a bundle needs its member"),
        (("--source-prefix", "net."), "a prefix of a bundle needs its source"),
        (("--bundle", "sopran"), "did you mean 'soprano'?"),
        (("--bundle", "indextts3.yaml"), "the bundle file cannot be read"),
    ],
)
def test_what_a_bundle_needs_said_is_said(
    options: tuple[str, str], what: str, tmp_path: Path
) -> None:
    code, text = run("plan", "--bundle", "soprano", tmp_path, *options)
    assert code == (3 if "cannot be read" in what else 2)
    assert what in text


def test_models_lists_bundles_and_shows_one() -> None:
    text = run("models")[1]
    assert "indextts2  IndexTTS2: text and two voices in, speech out (13 models)" in text
    listed = answer("models")["result"]
    assert isinstance(listed, dict)
    assert [bundle["name"] for bundle in listed["bundles"]] == ["indextts2", "soprano"]
    text = run("models", "indextts2")[1]
    assert "source  s2mel              s2mel.safetensors" in text
    assert "member  w2v                wav2vec-bert (layers-17)          from w2v" in text
    assert "agree   dit.mels == vocoder.mels: the vocoder makes sound" in text
    shown = answer("models", "indextts2")["result"]
    assert isinstance(shown, dict)
    assert len(shown["bundles"][0]["members"]) == 13


def test_lint_checks_bundles_too() -> None:
    code, text = run("lint")
    assert code == 0
    assert all(f"{path}: no findings" in text for path in api.bundle_paths())


# Conversions


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the small sources, and their bundle converted into ``out``."""
    folder = tmp_path_factory.mktemp("small")
    write_small(folder, small_tensors())
    convert_small(folder, jobs=1)
    return folder


def test_a_bundle_is_its_members_and_a_record_of_them(sources: Path) -> None:
    files = contents(sources / "out")
    members = ["decoder", "emotion_conformer", "emotion_perceiver", "gpt", "lm"]
    members += ["speaker_conformer", "speaker_perceiver"]
    expected = {"bundle.json", "SHA256SUMS"}
    for name in members:
        expected |= {f"{name}/{f}" for f in ("SHA256SUMS", "manifest.json", "model.safetensors")}
    assert files.keys() == expected
    record = json.loads(files["bundle.json"])
    jsonschema.validate(record, resources.schema("bundle-record"))
    assert str(sources) not in files["bundle.json"].decode()
    assert sorted(record["members"]) == members
    assert record["agreed"][1]["values"] == {"speaker_perceiver.hidden": 32, "gpt.hidden": 32}
    assert [file["name"] for file in record["sources"]["lm"]] == ["model.safetensors"]


def test_the_bytes_are_the_same_again_and_for_any_workers(sources: Path) -> None:
    convert_small(sources, "again", jobs=2)
    assert contents(sources / "again") == contents(sources / "out")


def test_a_member_is_what_its_model_alone_would_be(sources: Path, tmp_path: Path) -> None:
    dims: dict[str, Dim] = {"hidden": 24, "context": 16, "latents": 1, "heads": 2, "dim_head": 8}
    api.convert(
        sources / "in" / FILES["gpt"],
        tmp_path / "alone",
        model="perceiver",
        variant="emotion",
        dims=dims,
    )
    assert contents(tmp_path / "alone") == contents(sources / "out" / "emotion_perceiver")


def test_the_command_line_converts_and_says_what_it_made(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = answer("convert", "--bundle", sources / "small.yaml", sources / "in", out)
    assert made["ok"] is True
    code, text = run("--bundle", sources / "small.yaml", sources / "in", out, "--overwrite")
    assert code == 0
    assert "agreed   3 conditions between members" in text
    assert answer("verify", out)["ok"] is True
    code, text = run("verify", out)
    assert code == 0
    assert f"{out}: bundle of 7 members" in text


def test_a_last_member_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    tensors = small_tensors()
    tensors["decoder"]["decoder.norm.weight"][0] = torch.nan
    write_small(tmp_path, tensors)
    with pytest.raises(ValueRefusedError, match=r"final_norm|input_norm"):
        convert_small(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "small.yaml"}


def test_headers_alone_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = shipped_on_headers("soprano", tmp_path, read_headers("soprano"))
    before = contents(tmp_path)
    with pytest.raises(SourceError, match="can be planned, not converted") as caught:
        api.convert_bundle(str(path), tmp_path, tmp_path / "out")
    assert len(caught.value.findings) == 2
    assert contents(tmp_path) == before


def test_an_existing_bundle_is_replaced_only_when_asked(tmp_path: Path) -> None:
    tensors = small_tensors()
    write_small(tmp_path, tensors)
    convert_small(tmp_path)
    before = contents(tmp_path / "out")
    tensors["lm"]["model.norm.weight"] += 1
    write_small(tmp_path, tensors)
    with pytest.raises(ExecutionError, match="exists and is not empty"):
        convert_small(tmp_path)
    assert contents(tmp_path / "out") == before
    convert_small(tmp_path, overwrite=True)
    changed = {name for name, data in contents(tmp_path / "out").items() if data != before[name]}
    assert changed == {
        "SHA256SUMS",
        "bundle.json",
        *(f"lm/{name}" for name in ("SHA256SUMS", "manifest.json", "model.safetensors")),
    }
    assert {path.name for path in tmp_path.iterdir()} == {"in", "small.yaml", "out"}


@pytest.mark.parametrize("stranger", ["notes.txt", "lm/notes.txt", "more/model.safetensors"])
def test_a_bundle_with_something_else_in_it_is_not_replaced(stranger: str, tmp_path: Path) -> None:
    write_small(tmp_path, small_tensors())
    convert_small(tmp_path)
    path = tmp_path / "out" / stranger
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(ExecutionError, match=r"not a file of a bundle|not a canonical directory"):
        convert_small(tmp_path, overwrite=True)
    assert path.exists()


def test_progress_is_told_of_every_byte_of_the_bundle_once(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_small(tmp_path, small_tensors())
    made = convert_small(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {made.plan.total_bytes}
    assert sum(done for done, _ in told) == made.plan.total_bytes


def test_a_member_that_takes_nothing_hides_no_tensor(tmp_path: Path) -> None:
    rules = "format: 1\nmodel: mine\ntitle: Mine\norigin: here\ndtypes: [F32]\ndims: {layers: 0}\n"
    rules += "index: {i: layers}\nrules:\n  - from: a.{i}\n    to: {'b.{i}': [2]}\n"
    (tmp_path / "mine.yaml").write_text(rules)
    (tmp_path / "x.json").write_text('{"stray": {"dtype": "F32", "shape": [2]}}')
    bundle = (
        "format: 1\nbundle: one\ntitle: One\nsources: {x: {file: x.json, source_prefix: net.}}\n"
    )
    (tmp_path / "one.yaml").write_text(f"{bundle}members: {{m: {{source: x, rules: mine.yaml}}}}\n")
    with pytest.raises(PlanError) as caught:
        api.plan_bundle(str(tmp_path / "one.yaml"), tmp_path)
    assert [(f.code, f.tensor) for f in caught.value.findings] == [("unclaimed", "stray")]
