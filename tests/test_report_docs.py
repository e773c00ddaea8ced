"""docs/report.md, followed word by word, and its pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_pages import ROOT, follow

PAGE = ROOT / "docs" / "report.md"
TEXT = PAGE.read_text(encoding="utf-8")
IMAGES = sorted((ROOT / "docs" / "images").iterdir())


def test_the_page_is_true_word_by_word(tmp_path: Path) -> None:
    assert follow(PAGE, tmp_path) == 4


def test_every_picture_is_shown_and_every_picture_that_is_shown_is_there() -> None:
    shown = set(re.findall(r"images/([a-z-]+\.(?:png|svg))", TEXT))
    assert shown == {path.name for path in IMAGES}


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_a_picture_is_small_and_fetches_nothing(path: Path) -> None:
    data = path.read_bytes()
    assert len(data) < 200_000
    if path.suffix == ".svg":
        addresses = set(re.findall(r"https?://[^\"'\s)]+", data.decode()))
        assert addresses == {"http://www.w3.org/2000/svg"}
        assert "@font-face" not in data.decode()
    else:
        assert data.startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["inspect", "plan", "failing-convert"])
def test_a_picture_of_a_terminal_shows_what_was_typed_and_no_path_of_its_maker(name: str) -> None:
    text = (ROOT / "docs" / "images" / f"{name}.svg").read_text(encoding="utf-8")
    assert re.search(r">\$(?:&#160;| )convert", text)
    assert str(ROOT) not in text
    assert "/tmp" not in text
