"""The benches: their own logic, and a tiny run of each that proves what its contenders make."""

from __future__ import annotations

import contextlib
import filecmp
import io
import json
import os
import runpy
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks import (
    checkpoint,
    command,
    conversion,
    load_once,
    loading,
    measure,
    planning,
    ray_executor,
    result,
    same_tensors,
    start_up,
    workplace,
    write_checkpoint,
)
from benchmarks.measure import Contender, ContenderError
from benchmarks.result import Bar, Measured
from benchmarks.workplace import SkippedError, Workplace
from converter import api

SIZE = 3_000_000
HOLD = "import sys, time; held = b'x' * int(sys.argv[1]); time.sleep(float(sys.argv[2]))"


def place_in(folder: Path, **choices: Any) -> Workplace:
    """Return a workplace of one round, all of whose contenders are looked for here alone."""
    plain = {"rounds": 1, "jobs": 2, "pythons": (sys.executable,), "say": lambda text: None}
    return Workplace(**{"scratch": folder, **plain, **choices})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint.write(folder, SIZE, "mixed")
    return folder


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for what other programs write."""
    monkeypatch.setattr(os, "sync", lambda: None)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have programs in Python run in this process, where torch is imported already."""
    real = measure._launch

    def launch(command: Sequence[str | Path], extra: Mapping[str, str]) -> Any:
        program, *words = map(str, command)
        if program != sys.executable:
            return real(command, extra)
        output, errors, begun, code = io.StringIO(), io.StringIO(), time.perf_counter(), 0
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                run_here(words, monkeypatch)
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else bool(left.code)
                errors.write(left.code if isinstance(left.code, str) else "")
            except Exception as error:
                code = 1
                errors.write(str(error))
        seconds = time.perf_counter() - begun
        figures = {"seconds": seconds, "cpu_seconds": seconds, "peak_rss_bytes": 1.0}
        said = measure._Output(output.getvalue(), errors.getvalue())
        return {"exit_code": code, **figures}, said

    monkeypatch.setattr(measure, "_launch", launch)


def run_here(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what a command of Python would."""
    how = words[0]
    monkeypatch.setattr(sys, "argv", list(words[how == "-m" :]))
    if how == "-c":
        monkeypatch.setattr(sys, "argv", ["-c", *words[2:]])
        exec(compile(words[1], "-c", "exec"), {"__name__": "__main__"})
    elif how == "-m":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a module may be imported already
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(how, run_name="__main__")


def runs(*seconds: float) -> tuple[measure.Run, ...]:
    return tuple({"seconds": value, "peak_rss_bytes": 100 * value} for value in seconds)


# Figures


def test_the_middle_is_the_median() -> None:
    assert measure.middle(runs(5, 1, 2), "seconds") == 2
    assert measure.middle(runs(5, 1, 2, 3), "seconds") == 2.5


def test_a_ratio_is_one_of_medians() -> None:
    assert measure.ratio(runs(1, 9, 2), runs(4, 5, 100)) == 2 / 5
    assert measure.ratio(runs(1), runs(4), "peak_rss_bytes") == 1 / 4


@pytest.mark.parametrize(
    ("bar", "holds"),
    [
        (Bar("f", 0.9, "ratio", "at most", 0.9), True),
        (Bar("f", 0.91, "ratio", "at most", 0.9), False),
        (Bar("f", 0.85, "ratio", "at least", 0.85), True),
        (Bar("f", 0.84, "ratio", "at least", 0.85), False),
        (Bar("f", 1e9, "ratio"), None),
    ],
)
def test_a_bar_holds_up_to_its_bound(bar: Bar, holds: bool | None) -> None:
    assert bar.holds is holds


def test_the_bars_of_a_conversion_are_against_the_script_and_the_copy_with_digests() -> None:
    names = {"ours": 1.0, "naive": 2.0, "cp": 0.5, "cp+digests": 1.0, "naive+sync": 4.0}
    found = conversion.bars([Measured(name, "", runs(value)) for name, value in names.items()])
    shown = {bar.figure: (bar.value, bar.bound, bar.holds) for bar in found}
    assert shown["time against naive"] == (0.5, 0.8, True)
    assert shown["time against cp+digests"] == (1.0, 0.9, False)
    assert shown["time against cp"] == (2.0, None, None)
    assert shown["time against naive+sync"] == (0.25, None, None)
    assert shown["peak memory"] == (100.0, 600e6, True)


def test_the_bars_of_a_gpu_are_against_its_link_its_rivals_and_its_memory() -> None:
    def load(name: str, rate: float) -> Measured:
        run = {"load_bytes_per_second": rate, "load_seconds": 1 / rate, "data_bytes": 100.0}
        return Measured(name, "", (run,))

    limits = {"link": 10.0, "sha256": 5.0, "read": 20.0}
    loads = {"ours": 9.0, "ours-full": 4.0, "load_file": 3.0, "runai": 18.0, **limits}
    proofs = {
        "ours": {"peak_device_bytes": 100.0 + (128 << 20)},
        "ours-full": {"peak_device_bytes": 101.0 + (128 << 20)},
    }
    found = loading.cuda_bars([load(*item) for item in loads.items()], proofs)
    shown = {bar.figure: (round(bar.value, 9), bar.holds) for bar in found}
    assert shown == {
        'rate, check="header"': (9.0, None),
        'rate against the link, check="header"': (0.9, True),
        "time against load_file": (round(1 / 3, 9), True),
        "time against runai": (2.0, False),
        'rate, check="full"': (4.0, None),
        'rate against sha256 on all cores or the link, check="full"': (0.8, False),
        "device memory beyond the weights, ours": (128 << 20, True),
        "device memory beyond the weights, ours-full": ((128 << 20) + 1, False),
    }


def test_a_mapped_load_must_be_as_fast_as_load_file() -> None:
    def load(name: str, seconds: float) -> Measured:
        return Measured(name, "", ({"load_seconds": seconds, "touched_seconds": 2 * seconds},))

    found = loading.cpu_bars([load("ours", 3), load("ours-mapped", 2), load("load_file", 1)])
    assert [(bar.value, bar.holds) for bar in found] == [
        (2, False),
        (2, None),
        (3, None),
        (3, None),
    ]


# Processes


def test_a_run_says_time_and_memory_of_the_process() -> None:
    taken = measure.run(Contender("c", "", measure.python("-c", HOLD, "200000000", "0.2")))
    assert taken["seconds"] > 0.2
    assert taken["peak_rss_bytes"] > 200e6


def test_the_memory_of_a_run_is_not_that_of_the_process_that_measures() -> None:
    held = b"x" * 300_000_000
    assert measure.run(Contender("c", "", ["true"]))["peak_rss_bytes"] < 100e6
    assert len(held) == 300_000_000


def test_the_memory_of_a_run_is_that_of_all_its_processes() -> None:
    words = [sys.executable, "-c", HOLD, "150000000", "0.6"]
    both = f"import subprocess; held = b'x' * 150_000_000; subprocess.run({words!r})"
    assert measure.run(Contender("c", "", measure.python("-c", both)))["peak_rss_bytes"] > 300e6


def test_what_a_contender_answers_joins_its_figures() -> None:
    code = "print('loading'); print('{\"load_seconds\": 0.5}')"
    answering = Contender("c", "", measure.python("-c", code), answers=True)
    assert measure.run(answering)["load_seconds"] == 0.5
    silent = replace(answering, command=measure.python("-c", "print('loading')"))
    with pytest.raises(ContenderError, match="no object in its last line: 'loading'"):
        measure.run(silent)


def test_a_contender_that_fails_says_why() -> None:
    with pytest.raises(ContenderError, match="exit code 3: it is broken"):
        measure.run(Contender("c", "", ["sh", "-c", "echo it is broken >&2; exit 3"]))


def test_a_contender_that_is_not_there_says_so() -> None:
    with pytest.raises(ContenderError, match="no-such-program"):
        measure.run(Contender("c", "", ["no-such-program"]))


def test_a_contender_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LIMIT_SECONDS", 0.2)
    with pytest.raises(ContenderError, match="exit code -9"):
        measure.run(Contender("c", "", ["sh", "-c", "sleep 60; true"]))


def test_contenders_take_turns_and_each_begins_without_what_others_wrote(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"

    def contender(name: str) -> Contender:
        script = 'test ! -e "$1" && echo "$2" >> "$0" && mkdir "$1"'
        return Contender(name, "", ["sh", "-c", script, log, out, name], out)

    contenders = [contender("a"), contender("b")]
    rounds = measure.interleaved(contenders, rounds=2, inputs=[log.parent], say=lambda text: None)
    assert log.read_text().split() == ["a", "b", "a", "b"]
    assert {name: len(items) for name, items in rounds.runs.items()} == {"a": 2, "b": 2}
    assert not out.exists()


def test_one_that_fails_is_left_out_unless_it_is_required() -> None:
    good = Contender("good", "", ["true"])
    bad = Contender("bad", "", ["false"], required=False)
    rounds = measure.interleaved([bad, good], rounds=2, inputs=[], say=lambda text: None)
    assert rounds.runs.keys() == {"good"}
    assert rounds.skipped == {"bad": "exit code 1: "}
    with pytest.raises(ContenderError, match="bad: exit code 1"):
        measure.interleaved([replace(bad, required=True)], rounds=1, inputs=[], say=print)


def test_a_package_is_looked_for_in_each_interpreter() -> None:
    found = measure.installed("torch", ("no-such-python-here", sys.executable))
    assert found == measure.Found(sys.executable, torch.__version__)
    assert measure.installed("no-such-package", (sys.executable,)) is None


def test_the_process_that_measures_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, benchmarks.command; print({'torch', 'numpy'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=measure.environment()
    )
    assert done.stdout == "set()\n", done.stderr


# The checkpoint


@pytest.mark.parametrize("kind", ["mixed", "folds"])
@pytest.mark.parametrize("size", [8_000_000, 500_000_000, 2 * 10**9, 8 * 10**9, 16 * 10**9])
def test_a_checkpoint_has_the_size_asked_for(size: int, kind: str) -> None:
    dims = checkpoint.dims_for(size, kind)
    tensors = checkpoint.tensors_of(dims)
    made = sum(tensor.size_bytes for tensor in tensors.values())
    assert 0 <= size - made < 2 * 4 * dims.hidden
    folded = sum(item.size_bytes for name, item in tensors.items() if name.endswith("weight_v"))
    assert folded / size == pytest.approx(checkpoint.FOLD_PERCENT[kind] / 100, abs=0.02)


def test_a_size_that_is_too_small_is_refused() -> None:
    with pytest.raises(checkpoint.SizeError, match="100,000 bytes is too small"):
        checkpoint.dims_for(100_000)


def test_a_checkpoint_is_what_save_file_would_write(source: Path, tmp_path: Path) -> None:
    path = source / "model.safetensors"
    save_file(load_file(path), tmp_path / "saved", metadata={"format": "pt"})
    assert filecmp.cmp(path, tmp_path / "saved", shallow=False)


def test_a_checkpoint_is_the_same_every_time(source: Path, tmp_path: Path) -> None:
    write_checkpoint.write(tmp_path, SIZE, "mixed")
    assert ray_executor.same_files(source, tmp_path) == 3


def test_the_values_of_a_checkpoint_look_like_weights(source: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    assert torch.equal(tensors["position_ids"], torch.arange(4096)[None])
    assert tensors["vocoder.convs.0.weight_g"].min() >= 0.5
    assert tensors["frontend.blocks.0.norm.gamma"].mean() == pytest.approx(1, abs=0.1)
    matrices = [
        tensor for tensor in tensors.values() if tensor.dim() > 1 and tensor.is_floating_point()
    ]
    assert all(tensor.std() > 0 and abs(tensor.mean()) < 2 for tensor in matrices)
    assert len({tuple(tensor.flatten()[:4].tolist()) for tensor in tensors.values()}) == len(
        tensors
    )


def test_blocks_of_a_tensor_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_checkpoint, "BLOCK_ELEMENTS", 8)
    shape = checkpoint.TensorShape("F32", (20,))
    made = [block.tolist() for block in write_checkpoint.blocks(3, "lm_head.weight", shape)]
    assert [len(block) for block in made] == [8, 8, 4]
    assert made[0][:4] != made[1][:4] != made[2]


def test_the_rules_of_a_checkpoint_have_no_fault_and_fit(source: Path) -> None:
    assert api.lint(source / "rules.yaml") == ()
    plan = api.plan(source / "model.safetensors", rules=source / "rules.yaml")
    assert plan.used == len(checkpoint.tensors_of(checkpoint.dims_for(SIZE))) - 1


# What the contenders make


def test_tensors_that_differ_are_found(tmp_path: Path) -> None:
    def compare(changed: Mapping[str, torch.Tensor], **choices: Any) -> object:
        save_file(dict(changed), tmp_path / "right")
        plain = {"folded": "fold", "subset": False, **choices}
        return same_tensors.compare(tmp_path / "left", tmp_path / "right", **plain).get("differs")

    left = {"a": torch.ones(4), "fold": torch.ones(4), "empty": torch.ones(0)}
    save_file(left, tmp_path / "left")
    nearly = torch.tensor([1.0, 1.0, 1.0, 1.000001])
    assert compare(left) is None
    assert compare(left | {"fold": nearly}) is None
    assert compare(left | {"a": nearly}) == "a"
    assert compare(left | {"fold": torch.tensor([1.0, 1.0, 1.0, 1.1])}) == "fold"
    assert compare(left | {"fold": torch.full((4,), torch.nan)}) == "fold"
    assert compare(left | {"a": torch.ones(2, 2)}) == "a"
    assert compare(left | {"b": torch.ones(4)}) == "the names"
    assert compare({"a": left["a"]}) == "the names"
    assert compare({"a": left["a"]}, subset=True) is None


@pytest.mark.usefixtures("in_process")
def test_a_conversion_is_measured_beside_what_makes_the_same(tmp_path: Path) -> None:
    only = ("ours", "naive", "cp", "cp+digests", "cp+sync")
    found = conversion.conversion(place_in(tmp_path, only=only), SIZE)
    assert [item.name for item in found.contenders] == list(only)
    source = tmp_path / f"mixed-{SIZE}"
    plan = api.plan(source / "model.safetensors", rules=source / "rules.yaml")
    assert found.facts["naive_tensors_equal"] == len(plan.targets)
    assert len(found.bars) == len(only)
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, "passthrough.yaml"]


def test_tools_that_are_not_installed_are_left_out_and_named(tmp_path: Path) -> None:
    place = place_in(tmp_path, pythons=("no-such-python-here",))
    source = workplace.Checkpoint(tmp_path, checkpoint.dims_for(SIZE), SIZE)
    found, skipped = conversion._others(place, source)
    assert (found, skipped) == ([], dict.fromkeys(conversion.OTHERS, "not installed"))


@pytest.mark.usefixtures("in_process")
def test_a_script_that_makes_something_else_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = conversion._naive

    def swapped(*given: Any) -> list[str | Path]:
        *words, hidden, kv = real(*given)
        return [*words, kv, hidden]

    monkeypatch.setattr(conversion, "_naive", swapped)
    with pytest.raises(ContenderError, match="naive: "):
        conversion.conversion(place_in(tmp_path, only=("ours", "naive")), SIZE)


@pytest.mark.usefixtures("in_process")
def test_a_conversion_that_does_not_verify_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def corrupt(item: Contender) -> measure.Run:
        taken = measure.run(item)
        assert item.output is not None
        with (item.output / "model.safetensors").open("r+b") as file:
            file.seek(-1, io.SEEK_END)
            file.write(b"\xff")
        return taken

    monkeypatch.setattr(conversion, "run", corrupt)
    with pytest.raises(ContenderError, match=r"ours: .*verify"):
        conversion.memory(place_in(tmp_path), SIZE)


@pytest.mark.usefixtures("in_process")
def test_the_memory_of_a_conversion_is_measured_alone(tmp_path: Path) -> None:
    found = conversion.memory(place_in(tmp_path, rounds=2), SIZE)
    assert [(item.name, len(item.runs)) for item in found.contenders] == [("ours", 2)]
    assert [bar.figure for bar in found.bars] == ["peak memory"]


def test_the_plan_of_many_tensors_is_measured(tmp_path: Path) -> None:
    found = planning.planning(place_in(tmp_path), experts=2)
    assert found.facts == {"source_tensors": 400, "canonical_tensors": 500}
    assert [bar.unit for bar in found.bars] == ["s", "s"]
    with safe_open(tmp_path / "plan" / "model.safetensors", framework="np") as file:
        assert len(file.keys()) == 400
    assert planning.LAYERS * planning.EXPERTS * planning.TENSORS_PER_EXPERT == 100_000


def test_start_up_is_measured_beside_importing_torch(tmp_path: Path) -> None:
    found = start_up.start_up(place_in(tmp_path))
    assert [item.name for item in found.contenders] == ["help", "inspect", "import torch", "python"]
    counts = [bar for bar in found.bars if bar.unit == ""]
    assert [(bar.value, bar.bound) for bar in counts] == [(0, 0), (0, 0)]


def test_what_a_command_imports_is_seen() -> None:
    assert "click" in start_up.imported(["--help"], roots=("click",))
    with pytest.raises(ContenderError, match="cannot be told"):
        start_up.imported(["no-such-command"])


@pytest.mark.usefixtures("in_process")
def test_a_verification_is_measured_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch, kept = tmp_path / "scratch", tmp_path / "results" / "mine.json"
    scratch.mkdir()
    options = ["--size", "3MB", "--rounds", "1", "--scratch", scratch, "--results", kept]
    assert command.main(["verify", *map(str, options)]) == 0
    (found,) = result.load(kept).results
    assert {"ours", "hashlib", "sha256sum"} <= {item.name for item in found.contenders}
    assert [bar.bound for bar in found.bars if bar.bound is not None] == [0.7]
    assert "time against hashlib, one thread" in capsys.readouterr().out
    assert not list(scratch.iterdir())
    for secret in (socket.gethostname(), str(tmp_path)):
        assert secret not in kept.read_text()


# Loads


@pytest.fixture(scope="module")
def canonical(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("canonical") / "out"
    made = api.convert(source / "model.safetensors", out, rules=source / "rules.yaml")
    assert not made.warnings, "it looks like a trained checkpoint"
    return out


def is_installed(package: str) -> bool:
    with contextlib.suppress(PackageNotFoundError):
        return bool(version(package))
    return False


INSTALLED = [name for name, item in load_once.LOADERS.items() if is_installed(item.package)]


@pytest.mark.parametrize("name", INSTALLED)
def test_every_loader_gives_the_right_tensors(name: str, canonical: Path) -> None:
    loader = load_once.LOADERS[name]
    try:
        loader.make()
    except SystemExit as lacks:
        assert not loader.required
        pytest.skip(str(lacks))
    records = json.loads((canonical / "manifest.json").read_text())["tensors"]
    watched = load_once.watch(loader, canonical, "cpu")
    assert watched == {"tensors": len(records), "peak_device_bytes": 0, "torch_reserved_bytes": 0}
    taken = load_once.load_once(loader, canonical, "cpu")
    assert taken["data_bytes"] == sum(record["size"] for record in records.values())
    assert 0 < taken["load_seconds"] < taken["touched_seconds"]


def test_ours_and_load_file_are_among_the_loaders_tried() -> None:
    assert {"ours", "ours-full", "load_file"} <= set(INSTALLED)


@pytest.mark.parametrize("change", ["value", "shape", "name"])
def test_a_loader_that_gives_something_else_is_caught(change: str, canonical: Path) -> None:
    tensors = load_file(canonical / "model.safetensors")
    if change == "value":
        tensors["lm_head.weight"][0, 0] += 1
    elif change == "shape":
        tensors["lm_head.weight"] = tensors["lm_head.weight"].T
    else:
        tensors["another"] = tensors.pop("lm_head.weight")
    with pytest.raises(SystemExit, match=r"lm_head|names"):
        load_once.prove(tensors, canonical)


def test_an_argument_that_this_version_lacks_is_named() -> None:
    with pytest.raises(SystemExit, match="takes no clairvoyant"):
        load_once._ours(clairvoyant=True)()


def test_memory_in_use_is_seen_at_its_peak() -> None:
    levels = iter([10, 10, 70, 30])
    reached = []

    def used() -> int:
        reached.append(next(levels, 20))
        return reached[-1]

    with load_once.watched(used) as seen:
        while len(reached) < 5:
            time.sleep(0.001)
    assert seen == [10, 70]


@pytest.mark.usefixtures("in_process")
def test_loads_into_memory_are_measured(tmp_path: Path) -> None:
    only = ("ours", "ours-full", "load_file")
    found = loading.load_cpu(place_in(tmp_path, only=only), SIZE)
    assert [item.name for item in found.contenders] == list(only)
    assert all(item.has(figure) for item in found.contenders for figure in found.quantities)


@pytest.mark.usefixtures("in_process")
def test_loads_onto_a_gpu_are_rehearsed_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = ("ours", "ours-full", "load_file")
    found = loading.load_cuda(place_in(tmp_path, only=only), SIZE, device="cpu")
    assert [item.name for item in found.contenders] == [*only, *loading.LIMITS]
    assert all(item.median("load_bytes_per_second") > 0 for item in found.contenders)
    assert [bar.bound for bar in found.bars if bar.sense == "at least"] == [0.85, 0.85]
    assert found.facts["device"] == "cpu"


def test_what_is_asked_of_cuda_is_there_to_be_asked() -> None:
    names = ("mem_get_info", "max_memory_reserved", "synchronize", "get_device_name")
    assert all(callable(getattr(torch.cuda, name)) for name in names)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.usefixtures("in_process")
def test_without_a_gpu_the_loads_onto_one_are_skipped_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SkippedError, match=r"no CUDA device: torch .* (finds|built)"):
        loading.load_cuda(place_in(tmp_path), SIZE)


# Ray


def test_files_that_differ_are_found(tmp_path: Path) -> None:
    left, right = tmp_path / "left", tmp_path / "right"
    for folder in (left, right):
        folder.mkdir()
        (folder / "a").write_text("same")
    assert ray_executor.same_files(left, right) == 1
    (right / "a").write_text("sane")
    with pytest.raises(ContenderError, match="not the same bytes: a"):
        ray_executor.same_files(left, right)
    (right / "b").touch()
    with pytest.raises(ContenderError, match="does not hold the files of left"):
        ray_executor.same_files(left, right)


def test_a_version_without_the_executor_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "ON_RAY", ("--no-such-option", "ray"))
    with pytest.raises(SkippedError, match="no --no-such-option"):
        ray_executor.ray_executor(place_in(tmp_path), SIZE)


# The workplace


def test_a_full_disk_is_foreseen(tmp_path: Path) -> None:
    with pytest.raises(SkippedError, match=r"it would write 1000000\.0 GB"):
        place_in(tmp_path).checkpoint(10**15)


def test_the_scratch_folder_goes_unless_it_is_kept(tmp_path: Path) -> None:
    with workplace.scratch_folder(tmp_path, keep=False) as folder:
        (folder / "file").touch()
    assert not list(tmp_path.iterdir())
    with workplace.scratch_folder(tmp_path, keep=True) as folder:
        (folder / "mixed-1").mkdir()
        (folder / "canonical-1").mkdir()
    with workplace.scratch_folder(tmp_path, keep=True) as folder:
        assert [path.name for path in folder.iterdir()] == ["mixed-1"]


def test_no_contender_that_is_wanted_is_a_reason_to_skip(tmp_path: Path) -> None:
    with pytest.raises(SkippedError, match="none of its contenders"):
        place_in(tmp_path, only=("b",)).wanted([Contender("a", "", ["true"])])
