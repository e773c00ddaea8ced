"""Shells complete commands, options, models, their variants and dims."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from toy import write_rules

from converter import api, resources
from converter.cli import main
from converter.cli_completion import script_for


def completed(*words: str) -> list[str]:
    """Return what a shell is told for a command line of which the last word was begun."""
    *before, incomplete = words
    shell = ShellComplete(main, {}, "convert", "_CONVERT_COMPLETE")
    return [item.value for item in shell.get_completions(before, incomplete)]


def test_commands_are_completed() -> None:
    assert completed("in") == ["inspect"]
    assert set(completed("")) >= set(main.commands)


def test_options_are_completed_with_and_without_the_command() -> None:
    assert completed("plan", "--ta") == ["--table"]
    assert completed("--overw") == ["--overwrite"]
    assert "--version" in completed("--")


def test_models_and_bundles_are_completed() -> None:
    assert completed("plan", "--model", "gpt2") == ["gpt2"]
    assert completed("--model", "") == list(resources.rule_files())
    assert completed("in.safetensors", "out", "--model", "wav2vec") == [
        name for name in resources.rule_files() if name.startswith("wav2vec")
    ]
    assert completed("convert", "--bundle", "") == list(resources.bundle_files())
    assert completed("models", "sop") == [
        *(name for name in resources.rule_files() if name.startswith("sop")),
        *(name for name in resources.bundle_files() if name.startswith("sop")),
    ]


def test_variants_are_those_of_the_model() -> None:
    every = [name for names in api.model("bert").variants.values() for name in names]
    assert completed("plan", "--model", "bert", "--variant", "") == every
    assert completed("--model", "bert", "--variant", "leg") == ["legacy"]
    assert completed("plan", "--variant", "") == []
    assert completed("plan", "--model", "no-such", "--variant", "") == []


def test_an_axis_that_is_chosen_offers_no_more() -> None:
    axes = api.model("bert").variants
    left = [name for axis, names in axes.items() if axis != "spelling" for name in names]
    assert completed("--model", "bert", "--variant", "legacy,") == [f"legacy,{n}" for n in left]
    assert completed("--model", "bert", "--variant", "legacy", "--variant", "") == left


def test_dims_and_variants_of_ones_own_rules_are_completed(tmp_path: Path) -> None:
    rules = str(write_rules(tmp_path))
    assert completed("plan", "--rules", rules, "--set", "") == ["layers=", "hidden="]
    (tmp_path / "broken.yaml").write_text("{")
    assert completed("plan", "--rules", str(tmp_path / "broken.yaml"), "--set", "") == []


def test_dtypes_are_completed_as_they_are_begun() -> None:
    assert completed("plan", "--dtype", "b") == ["bf16"]
    assert completed("plan", "--dtype", "B") == ["BF16"]


def test_a_word_that_is_nearly_a_command_is_no_error_while_it_is_completed() -> None:
    assert completed("verfy", "--") != []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell], prog_name="convert")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == script_for(shell, main, "convert") + "\n"
    assert f"_CONVERT_COMPLETE={shell}_complete" in result.stdout
    other = CliRunner().invoke(main, ["completion", shell], prog_name="checkpoint-convert")
    assert f"_CHECKPOINT_CONVERT_COMPLETE={shell}_complete" in other.stdout


def test_the_script_is_data_too() -> None:
    document = json.loads(CliRunner().invoke(main, ["completion", "zsh", "--json"]).stdout)
    jsonschema.validate(document, resources.schema("report"))
    assert document["result"]["program"] == "convert"


def test_a_shell_that_is_not_known_is_refused() -> None:
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_by_the_script(tmp_path: Path) -> None:
    program = tmp_path / "convert"
    program.write_text(
        f"#!{sys.executable}\nfrom converter.cli import main\nmain(prog_name='convert')\n"
    )
    program.chmod(0o755)
    script = f"""
        {script_for("bash", main, "convert")}
        COMP_WORDS=({program} plan --model bert --variant leg)
        COMP_CWORD=5
        _convert_completion {program}
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("legacy\n", "")
