"""Links between pages lead somewhere: to a file of the repository, and to a heading of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_pages import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")


def prose(path: Path) -> str:
    """Return a page without its blocks of code."""
    return _FENCED.sub("", path.read_text(encoding="utf-8"))


def links(path: Path) -> Iterator[str]:
    """Yield the links of a page that lead into this repository."""
    for target in _LINK.findall(_CODE.sub("`code`", prose(path))):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(path: Path) -> set[str]:
    """Return what can stand after the ``#`` of a link to a page, as GitHub has it."""
    text = prose(path)
    found = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    for heading in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE):
        plain = re.sub(r"<[^>]*>|\]\([^)]*\)", "", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = next(n for n in range(99) if (slug if n == 0 else f"{slug}-{n}") not in found)
        found.add(slug if number == 0 else f"{slug}-{number}")
    return found


def leads_nowhere(page: Path, target: str) -> bool:
    """Return whether a link of a page leads to nothing."""
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    if not path.exists() or not path.is_relative_to(ROOT):
        return True
    return bool(anchor) and (path.suffix != ".md" or anchor not in anchors(path))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert [target for target in links(page) if leads_nowhere(page, target)] == []


def test_every_page_is_linked_to_from_another() -> None:
    linked = {(page.parent / t.partition("#")[0]).resolve() for page in PAGES for t in links(page)}
    docs = ROOT / "docs"
    assert docs / "models" in linked
    ours = {page for page in PAGES if page.parent == docs} - {docs / "README.md"}
    assert len(ours) > 20
    assert ours - linked == set()


@pytest.mark.parametrize(
    ("target", "nowhere"),
    [
        ("other.md", False),
        ("other.md#two-words-it-is-code", False),
        ("other.md#again-1", False),
        ("other.md#made-by-hand", False),
        ("#one", False),
        ("#two", True),
        ("other.md#again-2", True),
        ("gone.md", True),
        ("other.md#in-a-block", True),
        ("../..", True),
    ],
)
def test_a_link_that_leads_nowhere_is_seen(
    target: str, nowhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(leads_nowhere.__globals__, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"# One\n[x]({target}) `[y](code)`\n")
    (tmp_path / "other.md").write_text(
        "## Two words: it is `code`\n## Again\n## Again\n"
        '<a id="made-by-hand"></a>\n```\n# In a block\n```\n'
    )
    assert list(links(page)) == [target]
    assert leads_nowhere(page, target) is nowhere
