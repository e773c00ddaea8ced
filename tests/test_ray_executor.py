"""Conversions on a cluster of Ray with two workers: the same bytes, refusals and cleanliness.

The cluster is a real one, in processes of its own that listen to this machine alone.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import save_file
from toy import convert, one, refusal, toy_tensors, write_rules, write_source
from toy_bundle import convert_toys, write_toys

from converter import api, ray_cluster, ray_executor, resources
from converter.dims import read_dims
from converter.errors import ConverterError, ExecutionError, SourceError, UsageError

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.xdist_group("ray"),
]

TESTS = Path(__file__).parent
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # a token would be kept in the home directory
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
CLUSTER = """
import sys
import ray

ray.init(
    address="local",
    num_cpus=2,
    include_dashboard=False,
    object_store_memory=128 << 20,
    log_to_driver=False,
    _temp_dir=sys.argv[1],
)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""
ON_RAY: Mapping[str, Any] = {"executor": "ray"}
# Three source tensors whose casts take a while, and files of one target each.
SLOW = {f"w{n}": torch.full((2048, 4096), 1.5) for n in range(3)}
SLOW_RULES = "dtypes: [F32]\nindex: {i: 3}\nrules: [{from: 'w{i}', to: {'w{i}': [2048, 4096]}}]\n"
SLOW_OPTIONS: Mapping[str, Any] = {"dtype": "f8_e4m3", "max_shard_size": "10MB"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a cluster of two cores."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, folder],
        env=os.environ | ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process, pytest.MonkeyPatch.context() as patch:
        assert process.stdin is not None
        assert process.stdout is not None
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.wait(60)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def connected(address: str) -> Iterator[str]:
    """This process is connected to the cluster, which saves each test a second."""
    with ray_cluster.connected(address, cores=1):
        yield address


def tree(folder: Path) -> Mapping[str, tuple[int, bytes]]:
    """The mode and bytes of every file below a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def copy_of(folder: Path) -> Path:
    """A folder beside ``folder`` to convert the same in without a cluster."""
    beside = folder / "local"
    beside.mkdir()
    return beside


# The same bytes


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("jobs", [None, 2])
def test_the_directory_is_that_of_a_local_conversion_to_the_byte(
    tmp_path: Path, jobs: int | None
) -> None:
    local = convert(copy_of(tmp_path), toy_tensors(), max_shard_size="40B", jobs=1)
    spread = convert(tmp_path, toy_tensors(), max_shard_size="40B", jobs=jobs, **ON_RAY)
    assert len(spread.plan.shards) > 10
    assert tree(spread.out) == tree(local.out)
    assert spread.manifest == local.manifest
    assert spread.warnings == local.warnings == ()


@pytest.mark.usefixtures("connected")
def test_a_source_of_several_files_is_read_where_its_tensors_lie(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    tensors = toy_tensors()
    weight_map = {name: f"part-{n % 3}.safetensors" for n, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, folder / file)
    index = folder / "toy.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    options: dict[str, Any] = {"rules": write_rules(tmp_path), "max_shard_size": "100B"}
    api.convert(folder, tmp_path / "local", **options)
    api.convert(folder, tmp_path / "spread", **options, **ON_RAY)
    assert tree(tmp_path / "spread") == tree(tmp_path / "local")


@pytest.mark.usefixtures("connected")
def test_a_real_model_comes_out_the_same(tmp_path: Path) -> None:
    source = TESTS / "golden" / "s2mel" / "checkpoint.safetensors"
    options: dict[str, Any] = {
        "model": "dit",
        "source_prefix": "net.",
        "dims": read_dims(TESTS / "models" / "dit" / "golden-dims.yaml", []),
        "max_shard_size": "200KB",
    }
    api.convert(source, tmp_path / "local", **options)
    api.convert(source, tmp_path / "spread", **options, **ON_RAY)
    assert tree(tmp_path / "spread") == tree(tmp_path / "local")


@pytest.mark.usefixtures("connected")
def test_a_bundle_comes_out_the_same(tmp_path: Path) -> None:
    write_toys(tmp_path)
    local = convert_toys(tmp_path, "local")
    spread = convert_toys(tmp_path, "spread", **ON_RAY)
    assert tree(spread.out) == tree(local.out)
    assert spread.warnings == ()


@pytest.mark.usefixtures("connected")
def test_one_file_is_converted_too_and_said_to_be_no_use(tmp_path: Path) -> None:
    local = convert(copy_of(tmp_path), toy_tensors())
    spread = convert(tmp_path, toy_tensors(), **ON_RAY)
    assert tree(spread.out) == tree(local.out)
    (warning,) = spread.warnings
    assert (warning.code, warning.severity) == ("one-file", "warning")
    assert warning.hint is not None
    assert "--max-shard-size" in warning.hint


@pytest.mark.usefixtures("connected")
def test_progress_is_told_file_by_file_up_to_all_of_it(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    made = convert(
        tmp_path,
        toy_tensors(),
        max_shard_size="40B",
        progress=lambda done, total: told.append((done, total)),
        **ON_RAY,
    )
    assert sum(done for done, _ in told) == made.plan.total_bytes
    assert {total for _, total in told} == {made.plan.total_bytes}
    assert len([done for done, _ in told if done]) == len(made.plan.shards)


# Refusals


@pytest.mark.usefixtures("connected")
def test_refused_values_of_all_files_are_told_together_as_they_are_locally(tmp_path: Path) -> None:
    tensors = toy_tensors()
    tensors["net.layers.0.qkv"][5, 0] = float("inf")
    tensors["net.layers.1.v"][0, 0] = float("nan")
    tensors["net.positions"][3] = 0
    tensors["net.head"][0, 0] = -1
    local = refusal(copy_of(tmp_path), tensors, max_shard_size="40B")
    shutil.rmtree(tmp_path / "local")
    spread = refusal(tmp_path, tensors, max_shard_size="40B", **ON_RAY)
    assert type(spread) is type(local)
    assert [(f.code, f.tensor, f.got) for f in spread.findings] == [
        (f.code, f.tensor, f.got) for f in local.findings
    ]
    assert [f.tensor for f in spread.findings] == [
        *("net.positions", "net.head"),
        *("blocks.0.k.weight", "net.layers.1.g, net.layers.1.v"),
    ]


@pytest.mark.usefixtures("connected")
def test_a_header_alone_is_refused_as_it_is_locally(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text(json.dumps({"w": {"dtype": "F32", "shape": [2]}}))
    rules = write_rules(tmp_path, one("F32", "[2]"))
    with pytest.raises(SourceError) as caught:
        api.convert(tmp_path / "w.json", tmp_path / "out", rules=rules, **ON_RAY)
    assert caught.value.findings[0].code == "header-only"


@pytest.mark.usefixtures("connected")
def test_no_task_may_have_more_cores_than_a_machine_has(tmp_path: Path) -> None:
    error = refusal(tmp_path, toy_tensors(), jobs=3, **ON_RAY)
    assert isinstance(error, UsageError)
    assert error.findings[0].expected == "--jobs of at most 2"


@pytest.mark.parametrize("options", [{"executor": "dask"}, {"ray_address": "auto"}])
def test_what_makes_no_sense_is_refused(tmp_path: Path, options: Mapping[str, str]) -> None:
    assert isinstance(refusal(tmp_path, toy_tensors(), **options), UsageError)


class Unknown:
    """What no worker can be told, as what is of a package that it lacks."""

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("no_such_package",)


@pytest.mark.usefixtures("connected")
def test_a_worker_without_the_package_is_told_from_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "here", Unknown)
    error = refusal(tmp_path, toy_tensors(), max_shard_size="200B", **ON_RAY)
    assert isinstance(error, ExecutionError)
    (finding,) = error.findings
    assert finding.code == "worker"
    assert finding.got is not None
    assert finding.got.endswith("No module named 'no_such_package'")


# Workers that are killed


def pids_writing_below(folder: Path) -> Iterator[int]:
    """The processes that have a file below ``folder`` open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if Path(os.readlink(link)).is_relative_to(folder):
                yield int(link.parts[2])
        except OSError:
            continue


def kill_one_writing_below(folder: Path, killed: list[int]) -> None:
    """Kill the first process that is seen writing below ``folder``."""
    last = time.monotonic() + 60
    while not killed and time.monotonic() < last:
        for pid in pids_writing_below(folder):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return
        time.sleep(0.005)


@pytest.mark.usefixtures("connected")
def test_a_worker_that_is_killed_in_the_middle_changes_no_byte(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    local = convert(copy_of(tmp_path), SLOW, SLOW_RULES, **SLOW_OPTIONS)
    killed: list[int] = []
    killer = threading.Thread(
        target=kill_one_writing_below, args=(tmp_path / ".out.partial", killed)
    )
    killer.start()
    spread = convert(tmp_path, SLOW, SLOW_RULES, **SLOW_OPTIONS, **ON_RAY)
    killer.join()
    assert len(killed) == 1
    assert os.getpid() not in killed
    assert tree(spread.out) == tree(local.out)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()
    assert capfd.readouterr() == ("", "")


# The command line


def start(arguments: Sequence[str | Path], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "converter", "convert", *arguments, "--executor", "ray", "--json"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The answer of a command, which must be all that it says."""
    stdout, stderr = process.communicate(timeout=90)
    assert stderr == ""
    document = json.loads(stdout)
    jsonschema.validate(document, resources.schema("report"))
    assert document["exit_code"] == process.returncode
    assert isinstance(document, dict)
    return document


def processes_with(variable: str) -> list[str]:
    """The command lines of all processes that have a variable in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if variable.encode() in path.read_bytes().split(b"\0"):
                found.append((path.parent / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


def test_a_cluster_of_its_own_is_started_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    scratch = tempfile.mkdtemp(dir="/tmp")
    source = write_source(tmp_path, toy_tensors())
    rules = write_rules(tmp_path)
    api.convert(source, tmp_path / "local", rules=rules, max_shard_size="200B")
    arguments: list[str | Path] = [
        source,
        tmp_path / "out",
        "--rules",
        rules,
        "--max-shard-size",
        "200B",
    ]
    home = {"HOME": str(tmp_path / "home"), "TMPDIR": scratch, "RAY_ADDRESS": ""}
    found = answer(start(arguments, home))
    assert found["ok"], found
    assert tree(tmp_path / "out") == tree(tmp_path / "local")
    assert os.listdir(scratch) == []
    assert processes_with(f"TMPDIR={scratch}") == []
    os.rmdir(scratch)


def test_a_signal_ends_the_tasks_and_nothing_is_left(address: str, tmp_path: Path) -> None:
    source, rules = write_source(tmp_path, SLOW), write_rules(tmp_path, SLOW_RULES)
    arguments: list[str | Path] = [source, tmp_path / "out", "--rules", rules, "--dtype", "f8_e4m3"]
    before = {path.name for path in tmp_path.iterdir()}
    process = start([*arguments, "--max-shard-size", "10MB"], {"RAY_ADDRESS": address})
    last = time.monotonic() + 60
    while not list(pids_writing_below(tmp_path)) and time.monotonic() < last:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert (stdout, stderr) == ("", "ended by SIGTERM; no half-written directory is left\n")
    assert {path.name for path in tmp_path.iterdir()} == before
    assert list(pids_writing_below(tmp_path)) == []


@pytest.mark.parametrize("place", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there_is_said_to_be_so(tmp_path: Path, place: str) -> None:
    arguments: list[str | Path] = [
        *(write_source(tmp_path, toy_tensors()), tmp_path / "out"),
        *("--rules", write_rules(tmp_path), "--ray-address", place),
    ]
    found = answer(start(arguments, ENVIRONMENT))
    (finding,) = found["findings"]
    assert (found["exit_code"], finding["code"], finding["where"]) == (6, "ray", place)
    assert not (tmp_path / "out").exists()


def test_the_protocol_of_clients_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, toy_tensors(), ray_address="ray://here:10001", **ON_RAY)
    assert isinstance(error, UsageError)
    assert error.findings[0].got == "ray://here:10001"


# Without Ray


def test_without_the_extra_the_hint_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(ConverterError) as caught:
        ray_cluster.require_ray()
    assert isinstance(caught.value, ExecutionError)
    (finding,) = caught.value.findings
    assert (finding.code, finding.hint) == ("extra", "pip install 'checkpoint-converter[ray]'")


def test_the_command_line_does_not_import_ray() -> None:
    code = "import sys, converter.cli, converter.api; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
