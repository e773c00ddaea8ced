from converter import report_lint
from converter.finding import Finding
from converter.rules.lint import Linted
from converter.rules.lint_steps import Note


def test_findings_of_rule_files_are_counted_for_each() -> None:
    found = {
        "a.yaml": Linted(()),
        "b.yaml": Linted((Finding("x", "y"),)),
        "c.yaml": Linted((Finding("x", "y"), Finding("z", "w"))),
    }
    answer = report_lint.of_lint(found)
    assert answer.text.splitlines() == [
        "a.yaml: no findings",
        "b.yaml: 1 finding",
        "c.yaml: 2 findings",
    ]
    assert (answer.exit_code, len(answer.findings)) == (3, 3)


def test_what_steps_lose_is_told_and_no_fault() -> None:
    note = Note("a.yaml:3", "slice is lossy: padding", "x.weight")
    answer = report_lint.of_lint({"a.yaml": Linted((), (note,)), "b.yaml": Linted(())})
    assert answer.text.splitlines() == [
        "a.yaml: no findings",
        "  note: a.yaml:3: slice is lossy: padding: x.weight",
        "b.yaml: no findings",
    ]
    assert answer.result == {
        "files": {"a.yaml": 0, "b.yaml": 0},
        "notes": {
            "a.yaml": [
                {"where": "a.yaml:3", "what": "slice is lossy: padding", "tensor": "x.weight"}
            ]
        },
    }
    assert answer.exit_code == 0


def test_names_of_strangers_are_escaped() -> None:
    note = Note("a.yaml:3", "slice is lossy: \x1b[31m", "x")
    assert "\x1b" not in report_lint.of_lint({"a\x1b.yaml": Linted((), (note,))}).text
