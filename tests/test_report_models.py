"""What is shown of a model is all that its rule file says of it, and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from command_line import answer
from toy import HEAD, write_rules

from converter import api, api_models, resources
from converter.cli import main
from converter.errors import UsageError
from converter.runtime.networks import NETWORKS


def shown(*arguments: str | Path) -> list[str]:
    result = CliRunner().invoke(main, ["models", *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def data(*arguments: str | Path) -> dict[str, Any]:
    document = answer("models", *arguments)
    assert document["exit_code"] == 0
    made: dict[str, Any] = document["result"]
    return made


def test_models_and_bundles_are_listed() -> None:
    lines = shown()
    assert [line.split()[0] for line in lines[: len(api.models())]] == list(resources.rule_files())
    assert lines[-len(api.bundles()) - 1] == "Bundles, for --bundle:"
    result = data()
    assert [model["name"] for model in result["models"]] == list(resources.rule_files())
    assert [bundle["name"] for bundle in result["bundles"]] == list(resources.bundle_files())


def test_a_model_shows_every_dim_variant_and_convention() -> None:
    rules = api.model("bert")
    text = "\n".join(shown("bert"))
    for name, value in rules.dims.items():
        assert f" {name} = {value}\n" in text
    for axis, choices in rules.variants.items():
        assert f" {axis}: " in text
        for name, choice in choices.items():
            assert (f"{name} (default)" if choice.is_default else f"  {name} sets ") in text
    for name in rules.conventions:
        assert f" {name}: " in text
    assert "legacy sets {root} = 'bert.', {gamma} = 'gamma', {beta} = 'beta'" in text
    assert "base sets layers = 12, hidden = 768, heads = 12, ffn = 3072" in text


def test_derived_values_are_shown_as_they_are_written_and_worked_out() -> None:
    assert any(
        line.endswith("ffn = 256 * ((8 * hidden // 3 + 255) // 256) = 1536")
        for line in shown("dit")
    )
    (model,) = data("dit")["models"]
    assert model["derived"]["ffn"]["value"] == 1536
    assert model["audio"]["sample_rate"] == 22050


def test_a_model_says_in_which_bundles_it_is_and_what_they_read() -> None:
    (model,) = data("dit")["models"]
    assert [(item["bundle"], item["file"]) for item in model["bundles"]] == [
        ("indextts2", "s2mel.safetensors")
    ]
    (line,) = [line for line in shown("dit") if "bundle indextts2" in line]
    assert line.endswith("dit: s2mel.safetensors; imported from s2mel.pth (net)")
    assert data("gpt2")["models"][0]["bundles"] == []


def test_steps_are_in_the_order_of_their_first_use() -> None:
    assert data("gpt2")["models"][0]["steps"] == ["transpose", "split"]


@pytest.mark.parametrize("name", resources.rule_files())
def test_what_is_counted_is_what_a_plan_of_the_published_dims_has(name: str) -> None:
    (model,) = data(name)["models"]
    assert model["network"] == (name in NETWORKS)
    assert any(line.strip().startswith("network") for line in shown(name))
    if model["taken"] is None:
        assert any(None in item.values() for item in model["derived"].values()) or model["variants"]
    else:
        assert model["made"] > 0


def test_the_tensors_of_a_model_are_those_of_its_plan() -> None:
    header = Path(__file__).parent / "headers" / "gpt2.json"
    plan = api.plan(header, model="gpt2")
    (model,) = data("gpt2")["models"]
    assert (model["taken"], model["made"]) == (plan.used, len(plan.targets))


def test_a_rule_file_of_ones_own_is_shown_by_its_path(tmp_path: Path) -> None:
    path = write_rules(tmp_path)
    lines = shown(path)
    assert lines[0] == "toy: A toy with one of everything"
    assert "  derived     vocab = hidden + 2 = 6" in lines
    assert any("none: load_tensors" in line for line in lines)
    (model,) = data(path)["models"]
    assert (model["rules"], model["network"]) == (str(path), False)


def test_a_bundle_file_of_ones_own_is_shown_by_its_path() -> None:
    path = resources.bundle_files()["soprano"]
    assert shown(path) == shown("soprano")


def test_a_model_that_needs_a_variant_is_shown_without_values(tmp_path: Path) -> None:
    text = (
        f"{HEAD}dtypes: [F32]\ndims: {{n: 1}}\nderived: {{m: n + 1}}\n"
        "variants: {size: {one: {dims: {n: 1}}, two: {dims: {n: 2}}}}\n"
        "rules:\n  - {from: w, to: {w: [n]}}\n"
    )
    path = write_rules(tmp_path, text)
    assert "  derived  m = n + 1" in shown(path)
    (model,) = data(path)["models"]
    assert model["derived"] == {"m": {"expression": "n + 1", "value": None}}
    assert (model["taken"], model["variant_changes"]["two"]["dims"]) == (None, {"n": 2})


@pytest.mark.parametrize(("name", "code"), [("brt", 2), ("./absent.yaml", 3), ("", 2)])
def test_what_there_is_not_is_told(name: str, code: int) -> None:
    assert CliRunner().invoke(main, ["models", name]).exit_code == code


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nothing-like-it", "your own is named by the path of its .yaml"),
        ("wispher", "did you mean 'whisper'?"),
        ("indextts", "did you mean 'indextts2'?"),
    ],
)
def test_what_is_like_an_unknown_name_is_told_of_models_and_bundles(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        api_models.describe_model(name)
    (finding,) = caught.value.findings
    assert finding.hint == hint
    assert finding.expected is not None
    assert {"indextts2", "whisper"} <= set(finding.expected.removeprefix("one of ").split(", "))
