"""docs/trace.md, followed word by word; what it says of the format is what the program does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from doc_pages import ROOT, follow
from safetensors.torch import load_file

from converter.compare_values import DEFAULT_RTOL
from converter.source import open_source
from converter.trace_record import MOST_CALLS, Call, TraceRecord, to_metadata

PAGE = ROOT / "docs" / "trace.md"
TEXT = PAGE.read_text(encoding="utf-8")

CPP = """
int main(int, char** words) {
    const float values[] = {0.5f, -1.0f, 2.0f, 3.0f, 4.0f, 5.0f};
    Trace trace;
    trace.keep("layers.0.output", {1, 2, 3}, values);
    trace.keep("output.logits", {2}, values + 1);
    trace.write(words[1]);
}
"""
RUST = """
fn main() {
    let values = [0.5f32, -1.0, 2.0, 3.0, 4.0, 5.0];
    let mut trace = Trace::default();
    trace.keep("layers.0.output", &[1, 2, 3], &values);
    trace.keep("output.logits", &[2], &values[1..3]);
    trace.write(&std::env::args().nth(1).unwrap()).unwrap();
}
"""
COMPILERS = {
    "cpp": ("c++", CPP, ["-std=c++17", "-Wall", "-Werror", "-x", "c++"]),
    "rust": ("rustc", RUST, ["-D", "warnings", "--edition", "2021"]),
}


def block(language: str) -> str:
    """Return the one block of the page in a language."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return str(text)


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the tables below a heading."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_is_true_word_by_word(tmp_path: Path) -> None:
    assert follow(PAGE, tmp_path) == 15


@pytest.mark.parametrize("language", COMPILERS)
def test_what_it_gives_to_ports_writes_a_file_that_is_read(language: str, tmp_path: Path) -> None:
    program, main, options = COMPILERS[language]
    compiler = shutil.which(program)
    if compiler is None:
        pytest.skip(f"there is no {program} here")
    source = tmp_path / f"port.{language}"
    source.write_text(block(language) + main, encoding="utf-8")
    binary, out = tmp_path / "port", tmp_path / "port.safetensors"
    subprocess.run([compiler, *options, str(source), "-o", str(binary)], check=True)
    subprocess.run([str(binary), str(out)], check=True)
    with open_source(out) as strict:
        assert [str(spec) for spec in strict.header.values()] == ["F32 [1, 2, 3]", "F32 [2]"]
    held = load_file(out)
    assert torch.equal(held["output.logits"], torch.tensor([-1.0, 2.0]))
    assert held["layers.0.output"].flatten().tolist() == [0.5, -1.0, 2.0, 3.0, 4.0, 5.0]


def test_the_tolerances_are_those_of_the_program() -> None:
    told = {
        dtype: float(row[1])
        for row in rows("What is allowed")[1:]
        for dtype in row[0].split(", ")
        if dtype != "F8"
    }
    assert told == dict(DEFAULT_RTOL)


def test_the_metadata_and_the_members_of_calls_are_all_there() -> None:
    told = [row[0] for row in rows("What a trace holds")]
    keys = re.findall(r"`(\w+)`", " ".join(told))
    call = Call("", "Network", None, (), (), whole=True)
    metadata = to_metadata(TraceRecord((call,), model="toy", content_sha256="0" * 64))
    assert keys == [*metadata, *Call.__dataclass_fields__]
    assert f"at most {MOST_CALLS:,}" in TEXT


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    headings = {
        "#" + re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("## ")
    }
    assert len(links) > 8
    for link in links:
        assert link in headings if link.startswith("#") else (PAGE.parent / link).exists()
