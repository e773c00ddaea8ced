"""The main job at its real size: all 284 tensors of the published S2Mel, with random values."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from safetensors.numpy import save_file

from converter.cli import main

HEADER = Path(__file__).parent / "headers" / "s2mel.json"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is gone after the test: pytest would keep almost a gigabyte."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


def answer(*arguments: str | Path) -> dict[str, Any]:
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    assert document["exit_code"] == result.exit_code
    return document


def write_checkpoint(path: Path) -> None:
    random = np.random.default_rng(0)
    tensors: dict[str, NDArray[Any]] = {}
    for name, entry in json.loads(HEADER.read_text()).items():
        if name.endswith("input_pos"):
            tensors[name] = np.arange(entry["shape"][0])
        elif name.endswith("freqs"):
            (count,) = entry["shape"]
            tensors[name] = (10000.0 ** (-np.arange(count) / count)).astype(np.float32)
        else:
            tensors[name] = random.random(entry["shape"], dtype=np.float32)
    save_file(tensors, path)


def take_net_away(path: Path) -> None:
    """Rename every tensor in place; spaces keep the header as long as it was."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length)
        renamed = header.replace(b'"net.', b'"')
        assert len(header) - len(renamed) == 4 * 284
        file.seek(8)
        file.write(renamed.ljust(length))


def test_a_full_size_s2mel_is_converted_with_and_without_the_prefix_of_its_names(
    folder: Path,
) -> None:
    source = folder / "s2mel.safetensors"
    write_checkpoint(source)
    prefixed = answer("--model", "dit", "--source-prefix", "net.", source, folder / "prefixed")
    assert prefixed["exit_code"] == 0
    assert prefixed["findings"] == []
    take_net_away(source)
    bare = answer("--model", "dit", source, folder / "bare")
    assert bare["exit_code"] == 0
    for result in (prefixed["result"], bare["result"]):
        assert result["totals"] == {"tensors": 246, "parameters": 93_964_112, "bytes": 375_856_448}
        assert (result["used"], result["dropped"], result["out_of_scope"]) == (239, 17, 28)
    assert bare["result"]["content_sha256"] == prefixed["result"]["content_sha256"]
    assert answer("verify", folder / "prefixed", folder / "bare")["exit_code"] == 0


def test_names_with_a_prefix_that_nobody_stated_are_refused_with_a_hint(tmp_path: Path) -> None:
    document = answer("--model", "dit", HEADER, tmp_path / "out")
    assert document["exit_code"] == 5
    (finding,) = document["findings"]
    assert "--source-prefix net." in finding["hint"]
    assert not (tmp_path / "out").exists()


def test_names_without_the_prefix_that_was_stated_are_refused(tmp_path: Path) -> None:
    header = {
        name.removeprefix("net."): spec for name, spec in json.loads(HEADER.read_text()).items()
    }
    (tmp_path / "s2mel.json").write_text(json.dumps(header))
    options = ("--model", "dit", "--source-prefix", "net.")
    document = answer(*options, tmp_path / "s2mel.json", tmp_path / "out")
    assert document["exit_code"] == 5
    assert "prefix" in str(document["findings"][0].get("hint"))
