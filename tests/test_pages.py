"""Every block of code of every page in docs/ is run by a test, or is a figure, and says so."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tiny_rules
from click.testing import CliRunner
from doc_pages import ROOT, blocks, clone, follow_text, read_page, run
from doc_setups import SETUPS
from github_runner import read_action
from toy import convert, toy_tensors

from converter import digest
from converter.cli import main
from converter.rules import strict_yaml
from converter.rules.lint import lint_file
from converter.steps import STEPS, SUGAR

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
FOLLOWED = re.compile(r"console|(sh|python) run|\w+ file=\S+")  # what doc_pages does

# Which test follows a page; those of SETUPS are followed here.
FOLLOWERS = {
    **dict.fromkeys(SETUPS, "test_pages.py::test_a_page_is_true_word_by_word"),
    "diff.md": "test_cli_diff.py::test_the_page_says_what_the_command_prints",
    "explain.md": "test_cli_explain.py::test_the_page_says_what_the_command_prints",
    "report.md": "test_report_docs.py::test_the_page_is_true_word_by_word",
    "trace.md": "test_trace_page.py::test_the_page_is_true_word_by_word",
    "tutorial.md": "test_tutorial.py::test_every_command_of_the_tutorial_prints_what_it_says",
    "whisper.md": "test_whisper_page.py::test_the_page_is_true_word_by_word",
}
# Blocks that are run in another way: the page, what stands after the fence, and the test.
RUN = {
    ("ci.md", "yaml"): "test_pages.py::test_the_yaml_of_a_ci_is_what_it_takes",
    ("command-line.md", ""): "test_command_line_page.py::test_what_is_shown_is_what_is_answered",
    ("rules-by-example.md", "yaml"): (
        "test_rules_by_example.py::test_the_plan_of_an_example_is_the_one_that_is_shown"
    ),
    ("rules.md", "yaml"): "test_pages.py::test_a_part_of_a_rule_file_is_one",
    ("steps.md", "yaml"): "steps/test_steps_page.py::test_an_example_makes_what_the_page_says",
    ("steps.md", "yaml rules"): (
        "test_merge_ranks.py::test_the_command_of_the_page_merges_the_ranks"
    ),
    ("steps.md", "json"): "test_merge_ranks.py::test_the_command_of_the_page_merges_the_ranks",
    ("steps.md", ""): "test_merge_ranks.py::test_the_command_of_the_page_merges_the_ranks",
    ("rules-by-example.md", "plan"): (
        "test_rules_by_example.py::test_the_plan_of_an_example_is_the_one_that_is_shown"
    ),
    ("trace.md", "cpp"): (
        "test_trace_page.py::test_what_it_gives_to_ports_writes_a_file_that_is_read"
    ),
    ("trace.md", "rust"): (
        "test_trace_page.py::test_what_it_gives_to_ports_writes_a_file_that_is_read"
    ),
    # It sets up what runs the tests.
    ("tutorial.md", "sh"): "test_pages.py::test_the_tutorial_begins_as_the_tests_do",
}
GENERATED = {
    "bugs.md": "test_bug_page.py::test_the_page_is_up_to_date",
    "models/": "test_model_pages.py::test_every_page_is_up_to_date",
}


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def runner(page: str, info: str) -> str | None:
    """Return the test that runs the blocks of a page with ``info`` after the fence, if any."""
    for begin, test in GENERATED.items():
        if page.startswith(begin):
            return test
    if FOLLOWED.fullmatch(info):
        return FOLLOWERS.get(page)
    return RUN.get((page, "plan" if info.startswith("plan ") else info))


def has_test(node: str) -> bool:
    path, _, name = node.partition("::")
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return name in {part.name for part in tree.body if isinstance(part, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_is_run_by_a_test_or_is_a_figure(page: str) -> None:
    orphans = [
        f"docs/{page}:{line}: no test runs this block ({info!r}); a figure is of ```text"
        for info, line, _ in blocks(text_of(page))
        if info != "text" and runner(page, info) is None
    ]
    assert not orphans, "\n".join(orphans)


def test_a_block_that_nothing_runs_has_no_test() -> None:
    assert runner("never.md", "console") is None
    assert runner("ci.md", "json") is None
    assert runner("ci.md", "") is None
    assert runner("ci.md", "sh") is None
    assert not has_test("test_pages.py::test_that_is_not_there")


@pytest.mark.parametrize("node", sorted({*FOLLOWERS.values(), *RUN.values(), *GENERATED.values()}))
def test_the_tests_that_are_said_to_run_blocks_exist(node: str) -> None:
    assert has_test(node)


def test_nothing_is_registered_that_no_page_has() -> None:
    there = {
        (page, info.partition(" --")[0]) for page in PAGES for info, *_ in blocks(text_of(page))
    }
    assert set(RUN) <= there
    for page in FOLLOWERS:
        assert any(FOLLOWED.fullmatch(info) for name, info in there if name == page), page


def test_the_tests_of_other_pages_find_every_block() -> None:
    # What they search for is narrower than a fence.
    examples = [info.partition(" ")[0] for info, *_ in blocks(text_of("rules-by-example.md"))]
    assert examples == ["yaml", "plan"] * (len(examples) // 2)
    shown = [lines for info, _, lines in blocks(text_of("command-line.md")) if not info]
    assert all(lines[0].startswith("$ convert ") for lines in shown)


@pytest.mark.parametrize("page", [*SETUPS])
def test_a_page_is_true_word_by_word(page: str, tmp_path: Path) -> None:
    setup = SETUPS[page]
    setup.prepare(clone(tmp_path))
    assert follow_text(page, setup.changed(text_of(page)), tmp_path) >= 1


def test_the_tutorial_begins_as_the_tests_do() -> None:
    (lines,) = (lines for info, _, lines in blocks(text_of("tutorial.md")) if info == "sh")
    assert lines == ["make .venv/.ready", ". .venv/bin/activate"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "READY := .venv/.ready\n" in makefile
    assert "\ntest: $(READY)\n" in makefile


def documents(page: str) -> Iterator[Any]:
    for info, line, lines in blocks(text_of(page)):
        if info == "yaml":
            yield strict_yaml.parse("\n".join(lines).encode(), f"docs/{page}:{line}").value


def test_the_yaml_of_a_ci_is_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow, hooks = documents("ci.md")
    (step,) = (s for s in workflow["jobs"]["checkpoints"]["steps"] if "path" in s.get("with", {}))
    assert step["with"].keys() <= read_action()["inputs"].keys()
    told = re.findall(
        r"^\| `([a-z0-9-]+)` \| .*;|^\| `(level|all-digests)`", text_of("ci.md"), re.M
    )
    assert {name for pair in told for name in pair if name} <= read_action()["inputs"].keys()

    ours = strict_yaml.parse((ROOT / ".pre-commit-hooks.yaml").read_bytes(), "hooks").value
    assert isinstance(ours, list)
    entries = {hook["id"]: hook["entry"] for hook in ours}  # type: ignore[index, call-overload]
    convert(tmp_path, toy_tensors())
    (tmp_path / "converted").mkdir()
    (tmp_path / "out").rename(tmp_path / "converted" / "toy")
    manifest = tmp_path / "converted" / "toy" / "manifest.json"
    pin = f"{digest.sha256(manifest.read_bytes())}  converted/toy/manifest.json\n"
    (tmp_path / "pins.sha256").write_text(pin)
    monkeypatch.chdir(tmp_path)
    rules = [str(ROOT / "rules" / "gpt2.yaml")]
    for hook in hooks["repos"][0]["hooks"]:
        _, *words = shlex.split(str(entries[hook["id"]]))
        given = hook.get("args") or rules
        assert CliRunner().invoke(main, [*words, *given]).exit_code == 0, hook["id"]


def test_a_part_of_a_rule_file_is_one() -> None:
    parts = list(blocks(text_of("rules.md")))
    texts = ["\n".join(lines) for info, _, lines in parts if info == "yaml"]
    assert len(texts) == 2
    rules = (
        "dims: {hidden: 4, mlm_head: 0, nsp_head: 0}\n"
        "words: {gamma: weight, beta: bias, root: ''}\n"
        "rules:\n"
        "  - {from: '{root}wte.{gamma}', to: {token_embedding.weight: [hidden, hidden]}}\n"
        "  - {from: '{root}wte.{beta}', to: {token_embedding.bias: [hidden]}}\n"
        "  - {from: mlm, when: mlm_head == 1, to: {mlm: [1]}}\n"
        "  - {from: nsp, when: nsp_head == 1, to: {nsp: [1]}}\n"
    )
    for text in texts:
        assert lint_file(tiny_rules.parsed(f"{rules}{text}")).findings == ()


@pytest.mark.parametrize("name", [*STEPS, *SUGAR])
def test_the_page_on_rules_lists_every_step(name: str) -> None:
    assert f"[`{name}`](steps.md#{name})" in text_of("rules.md")


def test_what_contributors_are_told_to_edit_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:converter|tests|docs|schemas|rules)/[\w./-]+)`", text))
    there = {path for path in paths if not re.search("NAME|WORD", path)}
    assert len(there) > 15
    assert [path for path in sorted(there) if not (ROOT / path).exists()] == []
    for path in sorted(paths - there):
        pattern = re.sub("NAME|WORD", "*", path)
        assert list(ROOT.glob(pattern)), path


def shown_manifest() -> Any:
    page = text_of("canonical-format.md")
    return json.loads(
        page.partition("$ cat converted/small/manifest.json\n")[2].partition("\n```")[0]
    )


def test_the_manifest_of_the_page_on_the_format_is_real_to_its_last_digest(tmp_path: Path) -> None:
    # What is printed is compared without digests, since most of those hang on versions.
    steps = read_page(text_of("canonical-format.md"))
    last = next(n for n, step in enumerate(steps) if "cat converted/small" in step.text)
    run(steps[:last], clone(tmp_path))
    made = json.loads((tmp_path / "converted" / "small" / "manifest.json").read_bytes())
    shown = shown_manifest()
    assert made.pop("tool").keys() == shown.pop("tool").keys()
    assert made == shown


def test_the_manifest_of_the_page_on_the_format_is_described_field_by_field() -> None:
    page = text_of("canonical-format.md")
    manifest = shown_manifest()
    schema: Any = strict_yaml.parse(
        (ROOT / "schemas" / "manifest.schema.json").read_bytes(), ""
    ).value
    jsonschema.validate(manifest, schema)
    described = set(re.findall(r"`([\w.]+)`", "".join(re.findall(r"^\| (`.*?) \|", page, re.M))))
    for field, value in manifest.items():
        assert any(name == field or name.startswith(f"{field}.") for name in described), field
        if field in ("tool", "model", "rules", "totals"):
            assert set(value) <= set(re.findall(r"`(?:\w+\.)?(\w+)`", page)), field
    for tensor in schema["$defs"]["tensor"]["properties"]:
        assert tensor in described
