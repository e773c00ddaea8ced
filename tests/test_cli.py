import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import answer, run
from safetensors.torch import save_file
from toy import RULES, toy_tensors, write_rules, write_source

from converter import resources
from converter.cli import main

COMMANDS = sorted(main.commands)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the toy's checkpoint and rules."""
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path, toy_tensors())
    write_rules(tmp_path)
    return tmp_path


TOY = ("toy.safetensors", "out", "--rules", "toy.yaml")


# The command that is meant


def test_without_a_command_convert_is_meant(here: Path) -> None:
    result = run(*TOY)
    assert result.exit_code == 0
    assert result.stdout.startswith("toy: A toy with one of everything\n  read ")
    assert (here / "out" / "manifest.json").exists()


def test_options_may_come_first(here: Path) -> None:
    assert run("--rules", "toy.yaml", "toy.safetensors", "out").exit_code == 0
    assert (here / "out").exists()


def test_convert_may_be_named(here: Path) -> None:
    assert run("convert", *TOY).exit_code == 0
    assert (here / "out").exists()


@pytest.mark.parametrize("arguments", [("convert", "verify"), ("./verify",)], ids=" ".join)
def test_a_source_may_be_called_like_a_command(here: Path, arguments: Sequence[str]) -> None:
    (here / "verify").mkdir()
    (here / "toy.safetensors").rename(here / "verify" / "toy.safetensors")
    assert run(*arguments, *TOY[1:]).exit_code == 0
    assert (here / "out").exists()


def test_a_command_that_is_misspelt_is_no_source(here: Path) -> None:
    result = run("verfy", "out")
    assert result.exit_code == 2
    assert "'verfy' is neither a command nor a file. Did you mean 'verify'?" in result.stderr


def test_a_source_that_exists_is_never_taken_for_a_command(here: Path) -> None:
    (here / "plans").mkdir()
    (here / "toy.safetensors").rename(here / "plans" / "toy.safetensors")
    assert run("plans", *TOY[1:]).exit_code == 0


# Help


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_explains_itself_with_an_example(command: str, option: str) -> None:
    result = run(command, option)
    assert result.exit_code == 0
    assert re.search(r"Examples?:  convert ", result.stdout)
    assert "--json" in result.stdout


def test_help_lists_every_command() -> None:
    shown = run("--help").stdout
    assert {"convert", "plan", "verify", "inspect", "completion"} <= set(COMMANDS)
    assert all(f"  {command} " in shown for command in COMMANDS)


def test_no_arguments_are_a_question() -> None:
    result = run()
    assert result.exit_code == 2
    assert "Usage:" in result.output


def test_the_version_is_told() -> None:
    assert run("--version").stdout == "checkpoint-converter, version 0.1.0\n"


# Exit codes, and where the words go


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("toy.safetensors", "out"), 2, "exactly one of a model and a rule file"),
        (("toy.safetensors", "out", "--model", "brt"), 2, "did you mean 'bert'?"),
        ((*TOY, "--variant", "legacy"), 2, "toy has no variant 'legacy'"),
        ((*TOY, "--set", "layer=3"), 2, "did you mean 'layers'?"),
        ((*TOY, "--set", "layers"), 2, "not an assignment"),
        ((*TOY, "--dims", "absent.yaml"), 2, "absent.yaml: cannot be read"),
        ((*TOY, "--dtype", "f33"), 2, "did you mean F32?"),
        ((*TOY, "--dtype", "f8_e8m0"), 2, "not a floating dtype that can be cast to"),
        ((*TOY, "--max-shard-size", "many"), 2, "a size such as 5GB"),
        ((*TOY, "--frobnicate"), 2, "No such option"),
        ((*TOY, "--jobs", "0"), 2, "Invalid value"),
        (("toy.safetensors", "--rules", "toy.yaml"), 2, "Missing argument 'OUT'"),
        (("verify", "--level", "half", "out"), 2, "'half' is not one of"),
        (("models", "brt"), 2, "unknown model or bundle 'brt'"),
        (("toy.safetensors", "out", "--rules", "absent.yaml"), 3, "the rule file cannot be read"),
        (("lint", "broken.yaml"), 3, "broken.yaml:"),
        (("absent.safetensors", *TOY[1:]), 4, "absent.safetensors: there is no such file"),
        (("inspect", "toy.yaml"), 4, "not a checkpoint that can be read"),
        (("verify", "absent"), 4, "there is no such directory"),
        ((*TOY, "--scope", "other."), 5, "none of the 12 tensors"),
        ((*TOY, "--set", "layers=3"), 5, "net.layers.2.qkv"),
        (("toy.safetensors", "full", "--rules", "toy.yaml"), 6, "--overwrite"),
        (("verify", "."), 4, "there is no manifest"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_is_wrong_is_told_on_stderr_with_its_exit_code(
    here: Path, arguments: Sequence[str], code: int, words: str
) -> None:
    (here / "broken.yaml").write_text(RULES + "colour: red\n")
    (here / "full").mkdir()
    (here / "full" / "file").touch()
    before = set(here.iterdir())
    result = run(*arguments)
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert "error" not in result.stdout
    assert set(here.iterdir()) == before


def test_several_findings_are_counted(here: Path) -> None:
    result = run(*TOY, "--set", "layers=4")
    assert result.exit_code == 5
    assert result.stderr.count("error: ") > 1
    assert result.stderr.endswith(f"{result.stderr.count('error: ')} findings\n")


def test_a_warning_does_not_fail(here: Path) -> None:
    twins = {f"net.{name}": torch.arange(1024.0).view(32, 32) for name in "ab"}
    save_file(twins, here / "twins.safetensors")
    write_rules(
        here,
        "scope: net.\ndtypes: [F32]\nsets: {n: [a, b]}\n"
        "rules:\n  - from: '{n}'\n    to: {'{n}': [32, 32]}\n",
    )
    result = run("twins.safetensors", *TOY[1:])
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: tensors with equal bytes that no alias declares")
    (warning,) = answer("twins.safetensors", *TOY[1:], "--overwrite")["findings"]
    assert (warning["code"], warning["severity"]) == ("equal-tensors", "warning")


def test_nothing_is_coloured_in_a_pipe(here: Path) -> None:
    for arguments in (TOY, ("verify", "out"), ("verify", "."), ("models",), TOY):
        assert "\x1b" not in run(*arguments).output


# Answers as data


def test_every_command_answers_by_its_schema(here: Path) -> None:
    assert answer(*TOY)["result"]["totals"]["tensors"] == 14
    assert answer("plan", "toy.safetensors", "--rules", "toy.yaml")["result"]["used"] == 10
    assert answer("verify", "out")["result"]["directories"][0]["holds"] is True
    assert answer("lint", "toy.yaml")["result"]["files"] == {"toy.yaml": 0}
    assert answer("inspect", "toy.safetensors")["result"]["dtypes"]["F32"] == 10
    assert "bert" in {model["name"] for model in answer("models")["result"]["models"]}
    assert answer("models", "dit")["result"]["models"][0]["dims"]["layers"] == 13


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("toy.safetensors", "out"), 2),
        (("plan", "toy.safetensors", "--model", "brt"), 2),
        (("models", "brt"), 2),
        (("lint", "absent.yaml"), 3),
        (("inspect", "absent"), 4),
        ((*TOY, "--set", "layers=3"), 5),
        (("plan", "toy.safetensors", "--rules", "toy.yaml", "--set", "hidden=5"), 5),
        (("verify", "."), 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_every_failure_answers_by_its_schema(
    here: Path, arguments: Sequence[str], code: int
) -> None:
    document = answer(*arguments)
    assert document["exit_code"] == code
    assert document["findings"]
    assert document["command"] == next((a for a in arguments[:1] if a in COMMANDS), "convert")


def test_what_inspect_answers_is_a_header_that_can_be_planned(here: Path) -> None:
    tensors = answer("inspect", "toy.safetensors")["result"]["tensors"]
    (here / "header.json").write_text(json.dumps(tensors))
    of_header, of_file = (
        answer("plan", source, "--rules", "toy.yaml") for source in ("header.json", TOY[0])
    )
    assert of_header == of_file


def test_one_file_its_folder_and_its_header_are_inspected_alike(here: Path) -> None:
    (here / "folder").mkdir()
    write_source(here / "folder", toy_tensors())
    tensors = answer("inspect", "toy.safetensors")["result"]["tensors"]
    (here / "header.json").write_text(json.dumps(tensors))
    for source in ("folder", "header.json"):
        assert answer("inspect", source)["result"]["tensors"] == tensors
    assert run(*TOY).exit_code == 0
    assert answer("inspect", "out")["result"]["metadata"]["canonical"] == "1"


# Options reach the conversion


def test_options_say_what_is_converted_and_how(here: Path) -> None:
    bare = {name.replace("net.", "x.y."): tensor for name, tensor in toy_tensors().items()}
    save_file({f"z.{name}": tensor for name, tensor in bare.items()}, here / "toy.safetensors")
    (here / "dims.yaml").write_text("layers: 1\nhidden: 4\n")
    options = "--dims dims.yaml --set layers=2 --scope x.y. --source-prefix z."
    running = "--dtype bf16 --max-shard-size 300B --jobs 2 --quiet"
    assert run(*TOY, *options.split(), *running.split()).exit_code == 0
    manifest = json.loads((here / "out" / "manifest.json").read_text())
    assert manifest["rules"]["options"] == {"dtype": "BF16", "scope": "x.y.", "source_prefix": "z."}
    assert manifest["model"]["dims"] == {"layers": 2, "hidden": 4, "vocab": 6}
    assert manifest["out_of_scope"] == 1
    assert len(manifest["files"]) > 2


def test_variants_may_be_given_together_or_apart() -> None:
    header = Path(__file__).parent / "headers" / "bert-base-uncased.json"
    together = answer("plan", header, "--model", "bert", "--variant", "base, legacy,pretraining")
    options = [item for name in ("legacy", "pretraining", "base") for item in ("--variant", name)]
    assert answer("plan", header, "--model", "bert", *options) == together


def test_several_directories_are_verified_one_after_the_other(here: Path) -> None:
    assert run(*TOY).exit_code == 0
    assert run("verify", "out", "out").exit_code == 0
    (here / "empty").mkdir()
    document = answer("verify", "out", "empty")
    assert document["exit_code"] == 4
    assert [item["holds"] for item in document["result"]["directories"]] == [True]
    (here / "empty" / "SHA256SUMS").touch()
    document = answer("verify", "out", "empty")
    assert document["exit_code"] == 7
    assert [item["holds"] for item in document["result"]["directories"]] == [True, False]


def test_a_directory_that_is_not_there_hides_nothing_of_the_others(here: Path) -> None:
    assert run(*TOY).exit_code == 0
    document = answer("verify", "nowhere", "out")
    assert document["exit_code"] == 4
    assert [item["holds"] for item in document["result"]["directories"]] == [True]
    (here / "out" / "stray").touch()
    both = answer("verify", "nowhere", "out")
    assert both["exit_code"] == 7
    assert {finding["code"] for finding in both["findings"]} == {"extra", "absent"}


def test_an_empty_path_is_not_the_working_directory(here: Path) -> None:
    assert run("inspect", "").exit_code == 2


def test_rule_files_of_the_package_are_linted_when_none_is_named(here: Path) -> None:
    files = answer("lint")["result"]["files"]
    assert {Path(name).stem for name in files} >= set(resources.rule_files())
    assert set(files.values()) == {0}


def test_a_table_can_be_shown_where_arrows_cannot(here: Path) -> None:
    result = run("plan", "toy.safetensors", "--rules", "toy.yaml", "--table", charset="latin-1")
    assert result.exit_code == 0
    assert b"\\u2192 split" in result.stdout_bytes


# The process


CONVERT = (sys.executable, "-m", "converter")


def spawn(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    process: subprocess.Popen[bytes] = subprocess.Popen([*CONVERT, *arguments], **pipes)
    return process


def test_the_module_is_a_program(here: Path) -> None:
    done = subprocess.run([*CONVERT, "inspect", "toy.safetensors"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("toy.safetensors: 13 tensors, ")


@pytest.mark.parametrize(("arguments", "code"), [(("models",), 0), (("verify", "."), 4)])
def test_a_reader_that_has_seen_enough_is_no_error(
    here: Path, arguments: Sequence[str], code: int
) -> None:
    process = spawn(*arguments)
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate()
    assert process.returncode == code
    assert b"Traceback" not in errors
    assert b"Exception" not in errors


def test_an_answer_that_cannot_be_written_is_an_error() -> None:
    with open(os.devnull, "rb") as not_for_writing:
        process = spawn("models", stdout=not_for_writing)
        _, errors = process.communicate()
    assert process.returncode == 6
    assert errors == b"error: the answer cannot be written: Bad file descriptor\n"


def test_on_a_terminal_progress_is_shown_and_cleared(here: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = spawn(*TOY, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    stdout, _ = process.communicate()
    assert process.returncode == 0
    assert b"converting" in shown
    assert shown.rstrip().endswith(b"\x1b[2K")
    assert b"\x1b" not in stdout
