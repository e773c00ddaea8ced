"""docs/command-line.md has every command and option, and what it shows is what is answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from converter import errors
from converter.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
assert isinstance(main, click.Group)
COMMANDS = dict(main.commands)


def section(heading: str) -> str:
    """Return what is below a heading of the page; nothing where there is no such heading."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def options(command: click.Command) -> Iterator[click.Option]:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and "--help" not in parameter.opts:
            yield parameter


def described(option: click.Option) -> str:
    """Return how the row of an option begins."""
    names = ", ".join(f"`{name}`" for name in option.opts)
    return f"| {names} | {option.help}"


def plain(text: str) -> str:
    return re.sub(r"[`\\]", "", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_section_with_its_options_and_an_example(name: str) -> None:
    text = section(name)
    assert text, f"docs/command-line.md has no section '## {name}'"
    rows = [plain(line) for line in text.splitlines() if line.startswith("|")]
    missing = [
        described(option)
        for option in options(COMMANDS[name])
        if not any(row.startswith(plain(described(option))) for row in rows)
    ]
    assert not missing, f"the section '## {name}' lacks the rows: " + "\n".join(missing)
    assert re.search(r"^Examples?: `(?:eval )?.*convert ", text, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_section_has_an_option_that_there_is_not(name: str) -> None:
    known = {text for option in options(COMMANDS[name]) for text in option.opts}
    cells = [line.split("|")[1] for line in section(name).splitlines() if line.startswith("| `-")]
    told = {text for cell in cells for text in re.findall(r"`(-[-a-z0-9]+)`", cell)}
    assert told == known


def test_there_are_no_sections_of_commands_that_there_are_not() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert sorted(headings[1:]) == sorted(COMMANDS)
    listed = re.findall(r"^\| \[`(\S+)`\]\(#(\S+)\) \|", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted((name, name) for name in COMMANDS)


def test_every_exit_code_is_there() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.ConverterError)}
    stated = re.findall(r"^\| (\d+) \|", section("What holds for all of them"), re.MULTILINE)
    assert set(map(int, stated)) == {0, *codes}


SHOWN = re.findall(r"^```\n\$ convert (.+)\n((?:.*\n)+?)```$", PAGE, re.MULTILINE)


def test_there_is_something_shown() -> None:
    assert len(SHOWN) >= 3


@pytest.mark.parametrize(("command", "output"), SHOWN, ids=[command for command, _ in SHOWN])
def test_what_is_shown_is_what_is_answered(
    command: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert CliRunner().invoke(main, command.split()).output == output


def test_files_that_it_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
