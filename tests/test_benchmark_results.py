"""What the benches keep and show: results as JSON, the page, the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import command, page, result
from benchmarks.measure import ContenderError
from benchmarks.result import Bar, Measured, Result
from benchmarks.workplace import SkippedError, Workplace

MACHINE: Mapping[str, result.Fact] = {"cores": 2, "cpu": "a processor", "memory_gib": 4}


def runs(*seconds: float) -> tuple[Mapping[str, float], ...]:
    return tuple({"seconds": value, "peak_rss_bytes": 100 * value} for value in seconds)


def made_result(**changes: Any) -> Result:
    """Return a result of two contenders."""
    plain = Result(
        bench="conversion",
        title="Conversion",
        quantities=("seconds", "peak_rss_bytes"),
        date="2030-01-02",
        facts={"source_bytes": 2_000_000_000, "folded_percent": 7.5, "device": "a card"},
        contenders=(
            Measured("ours", "convert", runs(1.0, 3.0, 1.5)),
            Measured("cp", "cp of the file", runs(2.0, 5.0, 4.0)),
        ),
        bars=(
            Bar("time against cp", 0.375, "ratio", "at most", 0.9),
            Bar("rate", 2e9, "bytes/s", "at least", 3e9),
            Bar("beyond start-up", 0.25, "s"),
        ),
        notes=("A note.",),
        skipped={"mergekit": "not installed"},
        size_bytes=2_000_000_000,
    )
    return replace(plain, **changes)


def test_results_are_kept_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    result.keep(path, MACHINE, [made_result()])
    assert result.load(path) == result.Results(MACHINE, (made_result(),))


def test_a_newer_result_replaces_that_of_the_same_bench_and_size(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    larger = made_result(size_bytes=8_000_000_000)
    result.keep(path, MACHINE, [made_result(), larger])
    result.keep(path, MACHINE, [made_result(date="2031-01-01")])
    kept = result.load(path).results
    assert [(item.size_bytes, item.date) for item in kept] == [
        (2_000_000_000, "2031-01-01"),
        (8_000_000_000, "2030-01-02"),
    ]


def test_results_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    result.keep(path, MACHINE, [made_result()])
    with pytest.raises(result.ResultError, match="another machine"):
        result.keep(path, {**MACHINE, "cores": 64}, [made_result()])


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1, "machine": {}}'])
def test_what_is_no_results_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(result.ResultError, match=r"results\.json"):
        result.load(tmp_path / "results.json")


def kept_in(docs: Path, found: Result, stem: str = "cpu") -> Path:
    """Keep a result below a docs folder and return the file."""
    path = docs / "benchmarks" / f"{stem}.json"
    result.keep(path, MACHINE, [found])
    return path


def test_the_page_shows_every_figure_and_what_was_left_out(tmp_path: Path) -> None:
    kept_in(tmp_path, made_result())
    (text,) = page.pages(tmp_path).values()
    for shown in (
        "## On 2 cores, a processor",
        "memory 4 GiB",
        "| Conversion, 2 GB | time against cp | 0.38 × | at most 0.90 × | holds |",
        "| Conversion, 2 GB | rate | 2.00 GB/s | at least 3.00 GB/s | MISSED |",
        "| Conversion, 2 GB | beyond start-up | 0.250 s |  | reported |",
        "| ours | convert | 1.50 s | 1.00 s – 3.00 s | 0 MB |",
        "2030-01-02, 3 rounds; source 2 GB, folded 7.5 %, device a card.",
        "A note.",
        "Left out: mergekit (not installed).",
        "make bench",
        "(benchmarks/cpu-conversion-2GB.svg)",
    ):
        assert shown in text


def test_the_page_says_how_memory_grows_with_the_checkpoint(tmp_path: Path) -> None:
    for size, peak in ((2_000_000_000, 200e6), (8_000_000_000, 210e6)):
        bar = Bar("peak memory", peak, "bytes", "at most", 600e6)
        kept_in(tmp_path, made_result(bench="memory", bars=(bar,), size_bytes=size))
    (text,) = page.pages(tmp_path).values()
    assert "| peak memory at 8 GB against that at 2 GB | 1.05 × |" in text


@pytest.mark.parametrize(
    ("old", "new"),
    [('"unit": "ratio"', '"unit": "furlong"'), ('"holds": true', '"holds": null')],
)
def test_a_results_file_that_breaks_its_schema_makes_no_page(
    old: str, new: str, tmp_path: Path
) -> None:
    path = kept_in(tmp_path, made_result())
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(result.ResultError, match=r"cpu\.json: \$\.results\[0\]\.bars\[0\]"):
        page.pages(tmp_path)


def test_plots_are_written_beside_and_stale_ones_removed(tmp_path: Path) -> None:
    kept_in(tmp_path, made_result())
    (tmp_path / "benchmarks" / "old.svg").touch()
    written = page.write_pages(tmp_path)
    plot = tmp_path / "benchmarks" / "cpu-conversion-2GB.svg"
    assert written == [tmp_path / "benchmarks.md", plot]
    assert sorted(path.name for path in plot.parent.iterdir()) == [
        "cpu-conversion-2GB.svg",
        "cpu.json",
    ]
    text = plot.read_text()
    assert all(shown in text for shown in ("Conversion, 2 GB", "ours", "1.50 s", "peak memory, MB"))
    page.write_pages(tmp_path)
    assert plot.read_text() == text


def test_without_results_there_is_no_page(tmp_path: Path) -> None:
    assert page.pages(tmp_path) == {}


def test_the_page_in_docs_is_what_its_results_make() -> None:
    path = page.DOCS / page.PAGE
    present = {path: path.read_text("utf-8")} if path.exists() else {}
    assert present == page.pages(page.DOCS)


def test_help_lists_every_bench(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in (*command.BENCHES, "page"))


@pytest.mark.parametrize(
    "arguments", [["no-such-bench"], ["plan", "--size", "2furlongs"], ["plan", "--rounds", "0"]]
)
def test_wrong_usage_is_told(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(arguments)
    assert left.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


def test_a_bench_that_fails_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(place: Workplace) -> Result:
        raise ContenderError("it broke")

    def skipped(place: Workplace) -> Result:
        raise SkippedError("not here")

    functions: dict[str, Callable[[Workplace], Result]] = {
        "broken": broken,
        "skipped": skipped,
        "good": lambda place: made_result(size_bytes=None),
    }
    benches = {name: command.Bench("", once=function) for name, function in functions.items()}
    monkeypatch.setattr(command, "BENCHES", benches)
    kept = tmp_path / "kept.json"
    assert command.main(["--scratch", str(tmp_path), "--results", str(kept)]) == 1
    shown = capsys.readouterr().out
    assert "FAILED: it broke" in shown
    assert "skipped: not here" in shown
    assert len(result.load(kept).results) == 1
