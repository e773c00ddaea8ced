"""The same source gives the same bytes, whatever the machine is told beside it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from converter import api
from converter.dims import read_dims

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"

# Folds, splits, casts and statistics; one file and several.
CASES: Mapping[str, Mapping[str, Any]] = {
    "dit": {"model": "dit", "source_prefix": "net."},
    "dit in shards": {"model": "dit", "source_prefix": "net.", "max_shard_size": "200KB"},
    "dit in F16": {"model": "dit", "source_prefix": "net.", "dtype": "f16"},
    "bert": {"model": "bert", "variant": "legacy,pretraining"},
}

PROGRAM = """
import json, os, sys
from pathlib import Path
from converter import api
from converter.dims import read_dims

given = json.loads(sys.argv[1])
os.umask(given["umask"])
for name, options in given["cases"].items():
    dims = read_dims(Path(given["dims"][options["model"]]), [])
    source = Path(given["sources"][options["model"]])
    api.convert(source, Path(given["out"]) / name, jobs=given["jobs"], dims=dims, **options)
"""

PLAIN = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
    "LC_ALL": "C",
}
OTHER = {
    "OMP_NUM_THREADS": "2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "PYTHONHASHSEED": "4711",
    "TZ": "Pacific/Auckland",
    "LC_ALL": "tr_TR.UTF-8",
}


def convert_all(
    folder: Path, sources: Path, *, jobs: int, umask: int, environment: Mapping[str, str]
) -> Path:
    """Convert every case in a fresh interpreter, by paths that are relative to ``folder``."""
    given = {
        "jobs": jobs,
        "umask": umask,
        "cases": CASES,
        "out": "out",
        "dims": {
            model: str(TESTS / "models" / model / "golden-dims.yaml") for model in ("dit", "bert")
        },
        "sources": {
            model: os.path.relpath(sources / golden / "checkpoint.safetensors", folder)
            for model, golden in (("dit", "s2mel"), ("bert", "bert"))
        },
    }
    command = [sys.executable, "-c", PROGRAM, json.dumps(given)]
    subprocess.run(command, cwd=folder, env=os.environ | environment, check=True)
    return folder / "out"


def digest(directory: Path) -> str:
    """One sha256 of the names, modes and bytes of all files."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        digest.update(f"{path.name} {path.stat().st_mode:o} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    plain = tmp_path_factory.mktemp("plain")
    other = tmp_path_factory.mktemp("other") / "mit Leerzeichen" / "モデル – größer"
    other.mkdir(parents=True)
    for golden in ("s2mel", "bert"):
        (other / golden).mkdir()
        shutil.copy(GOLDEN / golden / "checkpoint.safetensors", other / golden)
    return (
        convert_all(plain, GOLDEN, jobs=1, umask=0o022, environment=PLAIN),
        convert_all(other, other, jobs=2, umask=0o077, environment=OTHER),
    )


@pytest.mark.parametrize("case", CASES)
def test_threads_cpu_locale_clock_folder_and_umask_change_no_byte(
    outs: tuple[Path, Path], case: str
) -> None:
    first, second = (out / case for out in outs)
    assert digest(first) == digest(second)


def test_a_program_that_uses_the_library_as_it_is_gets_the_same_bytes(
    outs: tuple[Path, Path], tmp_path: Path
) -> None:
    """This one, with as many threads and whatever instructions this machine has."""
    dims = read_dims(TESTS / "models" / "dit" / "golden-dims.yaml", [])
    source = GOLDEN / "s2mel" / "checkpoint.safetensors"
    api.convert(source, tmp_path / "dit", dims=dims, **CASES["dit"])
    assert digest(tmp_path / "dit") == digest(outs[0] / "dit")


def test_shards_hold_the_content_of_one_file(outs: tuple[Path, Path]) -> None:
    found = [
        json.loads((outs[0] / case / "manifest.json").read_text())["content_sha256"]
        for case in ("dit", "dit in shards", "dit in F16")
    ]
    assert found[0] == found[1] != found[2]
