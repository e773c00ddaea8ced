"""A checkpoint of two tensor-parallel ranks, by the commands and the rules of docs/steps.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from converter.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "steps.md").read_text(encoding="utf-8")
HEAD = "format: 1\nmodel: tiny\ntitle: ranks\norigin: these tests\ndtypes: [F32]\n"
Tensors = dict[str, NDArray[np.float32]]


def page_block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def whole() -> Tensors:
    """Return the tensors of the model as the rules of the page are to give them."""
    rng = np.random.default_rng(0)
    shapes = {f"{name}.weight": (4, 4) for name in ("q", "k", "v", "out")} | {"norm.weight": (4,)}
    return {name: rng.random(shape, np.float32) for name, shape in shapes.items()}


def shards(tensors: Tensors) -> list[Tensors]:
    """Cut a model for two ranks as Megatron does: heads by rank, the output by its columns."""
    return [
        {
            "attention.query_key_value.weight": np.concatenate(
                [tensors[f"{name}.weight"][2 * rank : 2 * rank + 2] for name in "qkv"]
            ),
            "attention.dense.weight": np.ascontiguousarray(
                tensors["out.weight"][:, 2 * rank : 2 * rank + 2]
            ),
            "norm.weight": tensors["norm.weight"],
        }
        for rank in (0, 1)
    ]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.yaml").write_text(HEAD + page_block("yaml rules"))
    (tmp_path / "model.ranks.json").write_text(page_block("json"))
    for number, tensors in enumerate(shards(whole())):
        safetensors.numpy.save_file(tensors, tmp_path / f"mp_rank_0{number}.safetensors")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--json"])


def answer(*arguments: str) -> dict[str, object]:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.output))


COMMAND = ("--rules", "model.yaml", "--set", "ranks=2", "model.ranks.json")


def test_the_command_of_the_page_merges_the_ranks(here: Path) -> None:
    assert " ".join(("convert", *COMMAND, "out/")) in PAGE
    answer("convert", *COMMAND, "out")
    made = safetensors.numpy.load_file(here / "out" / "model.safetensors")
    expected = whole()
    assert made.keys() == expected.keys()
    for name, tensor in expected.items():
        assert made[name].tobytes() == tensor.tobytes(), name
    manifest = json.loads((here / "out" / "manifest.json").read_text())
    files = [source["name"] for source in manifest["sources"]]
    assert files == ["mp_rank_00.safetensors", "mp_rank_01.safetensors"]
    q = manifest["tensors"]["q.weight"]
    assert q["sources"] == [f"rank.{r}.attention.query_key_value.weight" for r in (0, 1)]
    assert [next(iter(step)) for step in q["steps"]] == [
        "concat",
        "rearrange",
        "split",
        "rearrange",
    ]


def test_what_was_merged_is_derived_again_from_the_ranks(here: Path) -> None:
    answer("convert", *COMMAND, "out")
    source = ("--source", "model.ranks.json", "--rules", "model.yaml")
    answer("verify", "out", *source)
    (here / "model.ranks.json").write_text(
        '{"ranks": ["mp_rank_01.safetensors", "mp_rank_00.safetensors"]}'
    )
    assert run("verify", "out", *source).exit_code == 7, "the ranks in another order"


def test_ranks_are_planned_from_their_headers_alone(here: Path) -> None:
    answer("plan", *COMMAND)
    header = {
        f"rank.{number}.{name}": {"dtype": "F32", "shape": list(tensor.shape)}
        for number, tensors in enumerate(shards(whole()))
        for name, tensor in tensors.items()
    }
    (here / "header.json").write_text(json.dumps(header))
    answer("plan", "--rules", "model.yaml", "header.json")


def test_ranks_are_inspected_as_one_checkpoint(here: Path) -> None:
    result = CliRunner().invoke(main, ["inspect", "model.ranks.json"])
    assert result.exit_code == 0, result.output
    assert "rank.{0..1}.attention.dense.weight" in result.output


def test_another_number_of_ranks_does_not_fit(here: Path) -> None:
    result = run("convert", "--rules", "model.yaml", "--set", "ranks=1", "model.ranks.json", "out")
    assert result.exit_code == 5
    assert "rank.1.norm.weight" in result.output
    assert not (here / "out").exists()


def test_replicas_that_differ_leave_nothing_behind(here: Path) -> None:
    tensors = shards(whole())[1]
    tensors["norm.weight"] = tensors["norm.weight"].copy()
    tensors["norm.weight"][2] += 1
    safetensors.numpy.save_file(tensors, here / "mp_rank_01.safetensors")
    result = run("convert", *COMMAND, "out")
    assert result.exit_code == 6
    assert "deduplicate: tensor 1 differs from tensor 0" in result.output
    assert "rank.0.norm.weight, rank.1.norm.weight" in result.output
    assert not (here / "out").exists()
