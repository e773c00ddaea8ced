"""A canonical directory with a manifest of somebody else's making is refused, whoever opens it."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from crafted_manifests import MANIFESTS, Edit, write_manifest
from toy import convert, toy_tensors

from converter.canonical import MANIFEST_NAME
from converter.cli import main
from converter.errors import ConverterError
from converter.runtime import load_tensors


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    return convert(folder, toy_tensors()).out


@pytest.fixture
def out(toy: Path, tmp_path: Path) -> Path:
    return shutil.copytree(toy, tmp_path / "out")


def test_the_directory_as_written_holds(out: Path) -> None:
    write_manifest(out, (out / MANIFEST_NAME).read_bytes())
    assert CliRunner().invoke(main, ["verify", str(out)]).exit_code == 0
    assert load_tensors(out)


@pytest.mark.parametrize("edit", MANIFESTS.values(), ids=map(ascii, MANIFESTS))
def test_a_crafted_manifest_is_refused(edit: Edit, out: Path) -> None:
    text = (out / MANIFEST_NAME).read_bytes()
    write_manifest(out, edit(text))
    done = CliRunner().invoke(main, ["verify", str(out)])
    assert done.exit_code == 7, done.output
    for line in done.output.splitlines():
        assert line.isprintable()
        assert len(line) < 3000
    with pytest.raises(ConverterError) as caught:
        load_tensors(out, check="full")
    assert caught.value.exit_code in (4, 7)
    assert all(finding.what.isprintable() for finding in caught.value.findings)
