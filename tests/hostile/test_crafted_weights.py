"""A weights file of somebody else's making is refused, even with a manifest made to fit it."""

import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from crafted_files import REFUSED, TAKEN, Case
from crafted_manifests import write_manifest
from toy import convert, toy_tensors

from converter.canonical import MANIFEST_NAME, WEIGHTS_NAME
from converter.cli import main
from converter.errors import ConverterError
from converter.runtime import load_tensors


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("toy"), toy_tensors()).out


@pytest.fixture
def out(toy: Path, tmp_path: Path) -> Path:
    return shutil.copytree(toy, tmp_path / "out")


def forge(out: Path, data: bytes) -> None:
    """Put another weights file in place, and have manifest and digests vouch for it."""
    (out / WEIGHTS_NAME).write_bytes(data)
    header = data[: 8 + int.from_bytes(data[:8], "little")]
    digests = [hashlib.sha256(part).hexdigest() for part in (data, header)]
    entry = (
        f'{{"name": "{WEIGHTS_NAME}", "size": {len(data)}, "sha256": "{digests[0]}", '
        f'"header_sha256": "{digests[1]}"}}'
    )
    text = (out / MANIFEST_NAME).read_bytes()
    pattern = re.compile(rb'\{"name": "model.safetensors", [^}]*\}')
    assert pattern.search(text)
    write_manifest(out, pattern.sub(entry.encode(), text))


def refused(out: Path) -> None:
    """Check that ``verify`` and the runtime refuse a directory."""
    done = CliRunner().invoke(main, ["verify", str(out)])
    assert done.exit_code == 7, done.output
    assert all(line.isprintable() for line in done.output.splitlines())
    for check in ("header", "full"):
        with pytest.raises(ConverterError) as caught:
            load_tensors(out, check=check)
        assert caught.value.exit_code in (4, 7)


def test_what_was_written_is_no_forgery(out: Path) -> None:
    forge(out, (out / WEIGHTS_NAME).read_bytes())
    assert CliRunner().invoke(main, ["verify", str(out)]).exit_code == 0


@pytest.mark.parametrize("case", [*REFUSED.values(), *TAKEN.values()], ids=[*REFUSED, *TAKEN])
def test_a_crafted_weights_file_is_refused(case: Case, out: Path) -> None:
    forge(out, case())
    refused(out)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"format":"pt"', b'"format":"tf"'),
        (b'"dtype":"F32"', b'"dtype":"I32"'),
        (b'"shape":[4,4]', b'"shape":[2,8]'),
        (b'"data_offsets":[0,64]', b'"data_offsets":[0,65]'),
        (b'"blocks.0.q.weight"', b'"blocks.0.k.weight"'),
        (b"} ", b"}\n"),
        (b'{"__metadata__"', b' {"__metadata__'),
    ],
)
def test_a_header_that_differs_in_a_byte_or_two_is_refused(
    old: bytes, new: bytes, out: Path
) -> None:
    data = (out / WEIGHTS_NAME).read_bytes()
    assert old in data
    forge(out, data.replace(old, new, 1))
    refused(out)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
@pytest.mark.parametrize("name", [WEIGHTS_NAME, MANIFEST_NAME])
def test_a_link_a_pipe_or_a_directory_in_place_of_a_file_is_refused(name: str, out: Path) -> None:
    path, elsewhere = out / name, out.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    refused(out)
    path.unlink()
    os.mkfifo(path)
    refused(out)
    path.unlink()
    path.mkdir()
    refused(out)


def test_a_file_beside_them_cannot_steer_a_terminal(out: Path) -> None:
    (out / "\x1b[2J\u202e.txt").touch()
    done = CliRunner().invoke(main, ["verify", str(out)])
    assert done.exit_code == 7
    assert "\\x1b[2J\\u202e.txt" in done.output
    assert all(line.isprintable() for line in done.output.splitlines())
