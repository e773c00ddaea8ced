"""What the README says of models and exit codes is what the program has."""

from __future__ import annotations

import re
from pathlib import Path

from doc_pages import blocks, clone, follow_text

from converter import api, errors
from converter.rules.lint import lint
from converter.rules.parse import parse
from converter.rules.settings import resolve
from converter.runtime.networks import NETWORKS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its first two lines."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_models_is_what_convert_models_lists() -> None:
    expected = [
        [f"`{rules.model}`", rules.title, "yes" if rules.model in NETWORKS else ""]
        for rules in api.models()
    ]
    assert rows("Models") == expected


def test_the_table_of_bundles_is_what_convert_models_lists() -> None:
    expected = [[f"`{bundle.bundle}`", bundle.title] for bundle in api.bundles()]
    assert rows("A whole pipeline") == expected


def test_the_table_of_exit_codes_is_that_of_the_exceptions() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.ConverterError)}
    stated = {code for code, _ in rows("Exit codes")}
    assert stated == {*map(str, codes), "0", "128 + n"}


def test_files_that_it_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_its_commands_print_what_it_says(tmp_path: Path) -> None:
    clone(tmp_path)
    text = README.replace("$ .venv/bin/python ", "$ python ")
    assert follow_text("README.md", text, tmp_path) == 3


def test_its_rule_file_is_right_by_itself() -> None:
    (lines,) = (lines for info, _, lines in blocks(README) if info == "yaml")
    rule_file = parse("\n".join(lines).encode(), "README.md")
    assert lint(rule_file, resolve(rule_file)) == ()


def test_what_its_python_imports_is_there() -> None:
    (lines,) = (lines for info, _, lines in blocks(README) if info == "python")
    compile("\n".join(lines), "README.md", "exec")
    exec(lines[0], {})
