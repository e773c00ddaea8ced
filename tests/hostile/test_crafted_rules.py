"""Rule files of strangers: whatever they ask for, lint and plan end soon, with findings."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from crafted_rules import BUNDLES, RULES

from converter.cli import main
from converter.rules import indices

HARMLESS = {"dims nested deeply"}


def run(*arguments: str | Path) -> tuple[int, list[dict[str, str]]]:
    """Run a command; return its exit code and its findings."""
    done = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert done.stdout.isascii()
    report: Any = json.loads(done.stdout)
    assert done.exit_code == report["exit_code"]
    return done.exit_code, report["findings"]


def checked(folder: Path, text: str, exit_codes: set[int]) -> list[dict[str, str]]:
    """Return the findings of lint; plan must end too."""
    rules, header = folder / "evil.yaml", folder / "header.json"
    rules.write_text(text)
    header.write_text('{"a": {"dtype": "F32", "shape": [1]}}')
    exit_code, findings = run("lint", rules)
    assert exit_code in exit_codes
    assert len(findings) <= 201
    assert all(finding["what"].isprintable() for finding in findings)
    assert all(len(finding["what"]) < 1000 for finding in findings)
    done = CliRunner().invoke(main, ["plan", "--rules", str(rules), str(header)])
    assert done.exit_code in {*exit_codes, 2, 5}
    assert all(line.isprintable() for line in done.output.splitlines())
    return findings


@pytest.mark.parametrize("name", RULES)
def test_a_crafted_rule_file_is_refused_soon(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indices, "MAX_WORK", 1 << 18)
    monkeypatch.setattr(indices, "MAX_VALUES", 1 << 14)
    findings = checked(tmp_path, RULES[name](), {0} if name in HARMLESS else {3})
    assert bool(findings) != (name in HARMLESS)


@pytest.mark.parametrize("name", BUNDLES)
def test_a_crafted_bundle_file_is_refused_soon(name: str, tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(BUNDLES[name]())
    exit_code, findings = run("lint", path)
    assert exit_code == 3
    assert 0 < len(findings) <= 201
    done = CliRunner().invoke(main, ["plan", "--bundle", str(path), str(tmp_path)])
    assert done.exit_code == 3
    assert all(line.isprintable() and len(line) < 3000 for line in done.output.splitlines())


def test_what_has_no_end_is_refused_within_the_limits_that_hold(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(RULES["a thousand million names"]())
    done = CliRunner().invoke(main, ["lint", str(path)])
    assert done.exit_code == 3
    assert "repeated too often" in done.output


@pytest.mark.parametrize(
    ("name", "line", "what"),
    [
        ("a billion laughs", 6, "an anchor (&l0)"),
        ("doubling merge keys", 6, "an anchor (&m0)"),
        ("flow nested deeply", 6, "nested too deeply"),
        ("a key twice", 6, "the key 'model' stands twice"),
        ("an object of Python", 6, "a tag (tag:yaml.org,2002:python/object/apply:os.system)"),
        ("an index without end", 6, "an index has too many values"),
        ("names that are paths", 6, "not the name of a canonical tensor"),
        ("aliases with escapes", 8, "not the name of a canonical tensor"),
        ("names of thousands of numbers", 8, "too long for the name of a source tensor"),
        ("a constant without end", 8, "not the shape of a canonical tensor"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    name: str, line: int, what: str, tmp_path: Path
) -> None:
    (finding,) = checked(tmp_path, RULES[name](), {3})
    assert finding["where"].endswith(f"evil.yaml:{line}")
    assert finding["what"] == what


def test_of_very_many_findings_the_first_are_told_and_that_there_are_more(tmp_path: Path) -> None:
    findings = checked(tmp_path, RULES["thousands of unknown fields"](), {3})
    assert len(findings) == 201
    assert findings[-1]["code"] == "more"
