"""The way back: original tensors from canonical ones, bit for bit or by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner
from forgery import write
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from converter import api, resources
from converter import manifest as manifests
from converter.cli import main
from converter.dims import read_dims
from converter.errors import ExecutionError, MismatchError, UsageError
from converter.reverse import Reversed

HERE = Path(__file__).parent
Arrays = Mapping[str, NDArray[Any]]

# Golden checkpoint, model, file of dims, variant, scope.
Case: TypeAlias = tuple[str, str, str, list[str], str | None]

EXACT: Mapping[str, Case] = {
    "bert": ("bert", "bert", "golden-dims", ["legacy", "pretraining"], None),
    "conformer": ("conformer", "conformer", "golden-dims", [], ""),
    "gpt": ("gpt", "gpt", "golden-dims", [], None),
    "gpt-layer": ("s2mel", "gpt-layer", "golden-dims", [], "net.gpt_layer."),
    "gpt2": ("gpt2", "gpt2", "golden-dims", ["saved"], None),
    "gpt2 with masks": ("gpt2-hub-layout", "gpt2", "golden-dims", ["hub"], None),
    "of the gpt": ("gpt", "perceiver", "golden-gpt-emotion-dims", ["emotion"], None),
    "perceiver": ("perceiver", "perceiver", "golden-dims", [], ""),
    "soprano-decoder": ("soprano-decoder", "soprano-decoder", "golden-dims", [], None),
    "soprano-lm": ("soprano-lm", "soprano-lm", "golden-dims", [], None),
    "whisper": ("whisper", "whisper", "golden-dims", [], None),
}
LOSSY: Mapping[str, Case] = {
    "bigvgan": ("bigvgan", "bigvgan", "golden-dims", [], None),
    "campplus": ("campplus", "campplus", "golden-dims", [], None),
    "dit": ("s2mel", "dit", "golden-dims", [], "net.cfm.estimator."),
    "gpt-neox": ("gpt-neox", "gpt-neox", "golden-dims", [], None),
    "length-regulator": ("s2mel", "length-regulator", "golden-dims", [], "net.length_regulator."),
    "semantic-codec": ("semantic_codec", "semantic-codec", "golden-dims", [], None),
    "wav2vec-bert": ("wav2vec-bert", "wav2vec-bert", "golden-dims", [], None),
}


def convert(case: Case, out: Path) -> Arrays:
    """Convert a golden checkpoint; return its tensors that are in scope."""
    golden, model, dims, variant, scope = case
    source = HERE / "golden" / golden / "checkpoint.safetensors"
    sizes = read_dims(HERE / "models" / model / f"{dims}.yaml", [])
    made = api.convert(source, out, model=model, variant=variant, dims=sizes, scope=scope, jobs=1)
    claimed = set(made.plan.claimed)
    return {name: array for name, array in load_file(source).items() if name in claimed}


def assert_same(got: Arrays, expected: Arrays) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        assert got[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("name", EXACT)
def test_every_tensor_of_an_exact_model_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    original = convert(EXACT[name], tmp_path / "out")
    made = api.reverse(tmp_path / "out", tmp_path / "back.safetensors")
    assert made.reversal.losses == ()
    assert_same(load_file(tmp_path / "back.safetensors"), original)


@pytest.mark.parametrize("name", LOSSY)
def test_of_a_lossy_model_exactly_what_differs_is_named(name: str, tmp_path: Path) -> None:
    original = convert(LOSSY[name], tmp_path / "out")
    with pytest.raises(ExecutionError) as caught:
        api.reverse(tmp_path / "out", tmp_path / "back.safetensors")
    assert {finding.code for finding in caught.value.findings} == {"loss"}
    assert not (tmp_path / "back.safetensors").exists()

    made = api.reverse(tmp_path / "out", tmp_path / "back.safetensors", allow_lossy=True)
    back = load_file(tmp_path / "back.safetensors")
    made_all_the_same = {loss.name for loss in made.reversal.losses if loss.made}
    absent = {loss.name for loss in made.reversal.losses if not loss.made}
    assert made_all_the_same | absent
    assert back.keys() == original.keys() - absent
    assert_same(
        {key: array for key, array in back.items() if key not in made_all_the_same},
        {k: a for k, a in original.items() if k not in made_all_the_same | absent},
    )


def test_what_stands_for_a_weight_norm_is_folded_to_the_same_weight(tmp_path: Path) -> None:
    convert(LOSSY["semantic-codec"], tmp_path / "out")
    back = tmp_path / "back.safetensors"
    made = api.reverse(tmp_path / "out", back, allow_lossy=True)
    model = made.reversal.manifest.model
    dims = {name: value for name, value in model.dims.items() if name in api.model(model.name).dims}
    api.convert(back, tmp_path / "again", model=model.name, variant=model.variant, dims=dims)
    first = load_file(tmp_path / "out" / "model.safetensors")
    again = load_file(tmp_path / "again" / "model.safetensors")
    folded = {"quantizer.in_proj.weight", "quantizer.out_proj.weight"}
    for name, array in first.items():
        if name not in folded:
            assert array.tobytes() == again[name].tobytes()
    for name in folded:
        np.testing.assert_array_max_ulp(first[name], again[name], maxulp=2)


RULES = """
format: 1
model: toy
title: A toy
origin: nowhere
dtypes: [F32]
dims: {width: 4, heads: 2}
index: {i: heads}
rules:
  - from: [a, b]
    steps:
      - split: {dim: 0, sizes: [1, 3]}
      - transpose
    to:
      a0: [2, 1]
      a1: [2, 3]
      b0: [2, 1]
      b1: [2, 3]
  - from: cut
    steps:
      - slice: {dim: 0, start: 0, stop: 2, because: the rest is padding}
    to:
      kept: [2]
  - from: flat
    steps:
      - reshape: {shape: [width, 3]}
      - chunk: {dim: 0, chunks: 2}
    to:
      top: [2, 3]
      bottom: [2, 3]
  - from: maybe
    absent: zeros
    to:
      maybe: [2]
drop:
  - name: ramp
    expect: arange
    because: it is a ramp
  - name: twin
    expect: {equals: flat}
    because: it is the same
  - name: ramps_twin
    expect: {equals: ramp}
    because: it is the same
  - name: junk
    because: it is never read
"""


def toy() -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    flat = random.standard_normal(12, np.float32)
    return {
        "a": random.standard_normal((4, 2), np.float32),
        "b": random.standard_normal((4, 2), np.float32),
        "cut": random.standard_normal(5, np.float32),
        "flat": flat,
        "ramp": np.arange(6, dtype=np.int64).reshape(1, 6),
        "twin": flat,
        "ramps_twin": np.arange(6, dtype=np.int64).reshape(1, 6),
        "junk": random.standard_normal(3, np.float32),
    }


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(RULES)
    save_file(toy(), "toy.safetensors")
    api.convert("toy.safetensors", "out", rules="toy.yaml")
    return tmp_path / "out"


def back(**options: Any) -> tuple[Reversed, Arrays]:
    result = api.reverse("out", "back.safetensors", rules="toy.yaml", **options)
    return result, load_file("back.safetensors")


def test_steps_are_undone_in_the_groups_they_were_done_in(made: Path) -> None:
    result, arrays = back(allow_lossy=True)
    losses = {loss.name: (loss.why, loss.made) for loss in result.reversal.losses}
    assert losses == {
        "cut": ("slice cannot be undone", False),
        "junk": ("it was dropped: it is never read", False),
    }
    assert_same(arrays, {name: array for name, array in toy().items() if name not in losses})


def test_a_rounding_cast_comes_back_in_its_dtype_and_is_named(made: Path) -> None:
    api.convert("toy.safetensors", "out", rules="toy.yaml", dtype="bf16", overwrite=True)
    result, arrays = back(allow_lossy=True)
    losses = {loss.name: loss.why for loss in result.reversal.losses if loss.made}
    assert losses == dict.fromkeys(
        ("a", "b", "flat", "twin"), "values were rounded from F32 to BF16"
    )
    for name in losses:
        assert arrays[name].dtype == np.float32
        np.testing.assert_allclose(arrays[name], toy()[name], rtol=2**-8)


def test_the_same_bytes_come_out_whatever_the_number_of_workers(made: Path) -> None:
    digests = set()
    for jobs in (1, 3):
        result, _ = back(allow_lossy=True, jobs=jobs, overwrite=True)
        digests.add(result.file.sha256)
        text = Path("back.safetensors").read_bytes()
        assert result.file.size == len(text)
    assert len(digests) == 1


def test_a_damaged_directory_is_not_reversed(made: Path) -> None:
    path = made / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(MismatchError):
        back(allow_lossy=True)
    assert not Path("back.safetensors").exists()


def test_a_manifest_that_lists_other_sources_is_refused(made: Path) -> None:
    manifest = manifests.load((made / "manifest.json").read_bytes())
    first = next(record for record in manifest.tensors if record.name == "kept")
    (spec,) = first.source_specs
    changed = replace(first, source_specs=(replace(spec, dtype="F16"),))
    write(
        made,
        replace(manifest, tensors=tuple(changed if t == first else t for t in manifest.tensors)),
    )
    with pytest.raises((MismatchError, ExecutionError)):
        back()


@pytest.mark.parametrize("times", [0, 2])
def test_a_manifest_with_another_number_of_sources_than_of_specs_is_refused(
    times: int, made: Path
) -> None:
    manifest = manifests.load((made / "manifest.json").read_bytes())
    first = next(record for record in manifest.tensors if record.source_specs)
    changed = replace(first, source_specs=first.source_specs * times)
    tensors = tuple(changed if record == first else record for record in manifest.tensors)
    write(made, replace(manifest, tensors=tensors))
    with pytest.raises(MismatchError) as caught:
        back(allow_lossy=True)
    assert caught.value.findings[0].code == "derived"


def test_other_rules_than_those_that_were_used_are_refused(made: Path) -> None:
    Path("toy.yaml").write_text(RULES.replace("A toy", "Another"))
    with pytest.raises(MismatchError) as caught:
        back(allow_lossy=True)
    assert caught.value.findings[0].code == "rules"


def test_the_target_is_a_safetensors_file_that_is_not_there(made: Path) -> None:
    with pytest.raises(UsageError):
        api.reverse("out", "back.bin", rules="toy.yaml", allow_lossy=True)
    Path("back.safetensors").write_text("mine")
    with pytest.raises(ExecutionError):
        back(allow_lossy=True)
    assert Path("back.safetensors").read_text() == "mine"


def test_a_target_is_refused_before_the_directory_is_read(tmp_path: Path) -> None:
    taken = tmp_path / "taken.safetensors"
    taken.write_text("mine")
    with pytest.raises(ExecutionError, match="exists"):
        api.reverse(tmp_path / "absent", taken)
    with pytest.raises(UsageError, match="not a name"):
        api.reverse(tmp_path / "absent", tmp_path / "folder", overwrite=True)


def test_a_canonical_directory_is_not_written_into(made: Path) -> None:
    before = sorted(Path("out").iterdir())
    with pytest.raises(UsageError, match="would lie in the directory"):
        api.reverse("out", "out/back.safetensors", rules="toy.yaml", allow_lossy=True)
    Path("link").symlink_to("out")
    with pytest.raises(UsageError, match="would lie in the directory"):
        api.reverse("out", "link/model.safetensors", rules="toy.yaml", overwrite=True)
    assert sorted(Path("out").iterdir()) == before


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(main, [*arguments, "--json"])
    document = json.loads(result.stdout)
    jsonschema.validate(document, resources.schema("report"))
    return result.exit_code, document


def test_the_command_refuses_a_loss_then_names_it(made: Path) -> None:
    command = ("convert", "--reverse", "out", "back.safetensors", "--rules", "toy.yaml")
    code, document = run(*command)
    assert (code, document["findings"][0]["code"]) == (6, "loss")
    code, document = run(*command, "--allow-lossy")
    assert code == 0
    assert document["result"]["tensors"] == 6
    assert [loss["name"] for loss in document["result"]["losses"]] == ["cut", "junk"]
    assert {finding["severity"] for finding in document["findings"]} == {"warning"}
    result = CliRunner().invoke(main, [*command, "--allow-lossy", "--overwrite"])
    assert result.exit_code == 0
    assert "exact   6 tensors, bit for bit" in result.stdout
    assert "absent  2 tensors" in result.stdout


@pytest.mark.parametrize(
    "options",
    [["--reverse", "--dtype", "f16"], ["--reverse", "--model", "bert"], ["--allow-lossy"]],
)
def test_options_without_a_meaning_are_refused(made: Path, options: list[str]) -> None:
    code, _ = run("convert", "out", "back.safetensors", *options)
    assert code == 2
