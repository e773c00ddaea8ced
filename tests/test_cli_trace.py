"""The command lines of trace and compare: options reach the library, answers are by the schema."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from command_line import answer
from safetensors.torch import load_file, save_file
from test_without_torch import BARE

from converter import api
from converter.cli import main
from converter.dims import read_dims
from converter.errors import UsageError

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden" / "gpt2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small gpt2, what it is run on, and its trace."""
    folder = tmp_path_factory.mktemp("trace")
    dims = read_dims(TESTS / "models" / "gpt2" / "golden-dims.yaml", [])
    source = GOLDEN / "checkpoint.safetensors"
    api.convert(source, folder / "gpt2", model="gpt2", variant="saved", dims=dims)
    api.trace(folder / "gpt2", GOLDEN / "golden.safetensors", folder / "ours.safetensors")
    ours = load_file(folder / "ours.safetensors")
    save_file(ours, folder / "equal.safetensors")
    ours["layers.1.attention.out_proj.output"] += 1
    save_file(ours, folder / "port.safetensors")
    return folder


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_a_trace_says_what_it_wrote(tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    document = answer("trace", "gpt2", "--inputs", GOLDEN / "golden.safetensors", "-o", out)
    assert document["exit_code"] == 0
    result = document["result"]
    assert (result["model"], result["out"]) == ("gpt2", str(out))
    assert result["size"] == out.stat().st_size
    assert result["calls"][-1]["outputs"] == ["output.last_hidden_state", "output.logits"]
    assert out.read_bytes() == Path("ours.safetensors").read_bytes()


def test_the_text_of_a_trace_says_what_went_in_and_out(tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    options = ["--inputs", str(GOLDEN / "golden.safetensors"), "-o", str(out), "--full-check"]
    done = CliRunner().invoke(main, ["trace", "gpt2", *options, "--only", "layers.*.ffn"])
    assert done.exit_code == 0
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f"{out}: gpt2, 7 calls of 7 modules, ")
    assert rest[0] == "  takes  input.input_ids I64 [2, 13]"
    assert rest[1].split()[:2] == ["gives", "output.last_hidden_state"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("absent", "--inputs", GOLDEN / "golden.safetensors", "-o", "x"), 4, ""),
        (("gpt2", "--inputs", "absent", "-o", "x"), 4, "no such file"),
        (("gpt2", "--inputs", GOLDEN / "checkpoint.safetensors", "-o", "x"), 2, "takes no"),
        (
            ("gpt2", "--inputs", GOLDEN / "golden.safetensors", "-o", "x", "--only", "h"),
            2,
            "no module of this path",
        ),
        (
            ("gpt2", "--inputs", GOLDEN / "golden.safetensors", "-o", "ours.safetensors"),
            6,
            "the target exists",
        ),
        (
            ("gpt2", "--inputs", GOLDEN / "golden.safetensors", "-o", "x", "--device", "tpu"),
            2,
            "",
        ),
        (
            ("gpt2", "--inputs", GOLDEN / "golden.safetensors", "-o", "x", "--input-prefix", "q."),
            4,
            "begins so",
        ),
    ],
)
def test_a_trace_that_cannot_be_made_leaves_nothing(
    arguments: Sequence[str | Path], code: int, said: str
) -> None:
    document = answer("trace", *arguments)
    assert document["exit_code"] == code
    assert any(said in finding["what"] for finding in document["findings"])
    assert not Path("x").exists()


def test_a_trace_is_not_written_into_the_directory_of_its_weights() -> None:
    before = sorted(Path("gpt2").iterdir())
    with pytest.raises(UsageError, match="would lie in the directory"):
        api.trace("gpt2", GOLDEN / "golden.safetensors", "gpt2/ours.safetensors")
    assert sorted(Path("gpt2").iterdir()) == before


def test_inputs_of_another_shape_are_told_what_the_network_takes(tmp_path: Path) -> None:
    save_file({"input_ids": torch.zeros(3, dtype=torch.int64)}, tmp_path / "i.safetensors")
    inputs = tmp_path / "i.safetensors"
    (finding,) = answer("trace", "gpt2", "--inputs", inputs, "-o", "x")["findings"]
    assert finding["expected"].startswith("[B, T], T at most ")
    save_file({"input_ids": torch.full((1, 3), 99_999)}, inputs)
    (finding,) = answer("trace", "gpt2", "--inputs", inputs, "-o", "x")["findings"]
    assert finding["expected"] == "GPT2(input_ids)"
    assert finding["got"] == "input_ids I64 [1, 3]"
    assert finding["hint"].startswith("Read ``input_ids`` [B, T], integers below V")


def test_what_is_equal_is_exit_code_0() -> None:
    document = answer("compare", "ours.safetensors", "equal.safetensors")
    assert document["exit_code"] == 0
    result = document["result"]
    assert result["holds"]
    assert result["first"] is None
    assert result["inputs"] == "equal"
    assert result["counts"]["equal"] > 30
    assert result["other"]["is_trace"] is False


def test_what_parts_is_exit_code_7_and_names_the_module() -> None:
    document = answer("compare", "ours.safetensors", "port.safetensors")
    assert document["exit_code"] == 7
    result = document["result"]
    assert result["first"]["call"] == "layers.1.attention.out_proj"
    assert result["first"]["kind"] == "module"
    (parts,) = [item for item in result["tensors"] if item["name"] in result["first"]["tensors"]]
    assert parts["difference"]["largest"] == pytest.approx(1, abs=1e-5)
    assert [finding["code"] for finding in document["findings"]] == ["parts"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--atol", "2"), 0),
        (("--rtol", "1e9"), 0),
        (("--rtol", "0", "--atol", "0"), 7),
        (("--complete", "--atol", "2"), 7),
        (("--map", "absent.yaml"), 2),
        (("--atol", "-1"), 2),
        (("--all", "--quiet"), 7),
    ],
    ids=str,
)
def test_options_of_compare_reach_it(options: Sequence[str], code: int) -> None:
    answered = answer("compare", "ours.safetensors", "port.safetensors", *options)
    assert answered["exit_code"] == code


def test_the_text_of_compare_points_at_the_first() -> None:
    done = CliRunner().invoke(main, ["compare", "ours.safetensors", "port.safetensors"])
    assert done.exit_code == 7
    assert "\n→  layers.1.attention.out_proj.output" in done.stdout
    assert "the first to part is layers.1.attention.out_proj (Linear)" in done.stderr


def test_values_that_json_has_no_number_for_are_null(tmp_path: Path) -> None:
    port = load_file("ours.safetensors")
    port["output.logits"][0, 0, 0] = torch.nan
    save_file(port, tmp_path / "port.safetensors")
    document = answer("compare", "ours.safetensors", tmp_path / "port.safetensors")
    last = document["result"]["tensors"][-1]
    assert (last["name"], last["difference"]["largest"]) == ("output.logits", None)


def test_a_file_that_is_no_trace_is_refused_without_a_traceback() -> None:
    assert answer("compare", "port.safetensors", "ours.safetensors")["exit_code"] == 4
    assert answer("compare", "ours.safetensors", "absent")["exit_code"] == 4


def test_compare_needs_no_torch() -> None:
    code = BARE.replace('("torch", "numpy")', '("torch",)')
    assert code != BARE
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", "ours.safetensors", "equal.safetensors"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "ours.safetensors", "equal.safetensors"),
        ("trace", "gpt2", "--inputs", "inputs", "-o", "x"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_without_numpy_and_torch_it_says_what_is_missing(arguments: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, "-c", BARE, *arguments], capture_output=True, text=True)
    assert done.returncode == 6
    assert "which is not installed" in done.stderr
    for command in ("trace", "compare"):
        helped = subprocess.run(
            [sys.executable, "-c", BARE, command, "--help"], capture_output=True
        )
        assert helped.returncode == 0


def test_figures_that_float64_cannot_hold_are_null(tmp_path: Path) -> None:
    port = load_file("ours.safetensors")
    huge = torch.full_like(port["output.logits"], 1e200, dtype=torch.float64)
    save_file({**port, "output.logits": huge}, tmp_path / "port.safetensors")
    document = answer("compare", "ours.safetensors", tmp_path / "port.safetensors")
    last = document["result"]["tensors"][-1]
    assert (last["name"], last["difference"]["largest"]) == ("output.logits", 1e200)
    assert last["difference"]["error"] is None
