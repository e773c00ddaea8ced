"""The tutorial, followed word by word in a fresh clone, gives what it says."""

from __future__ import annotations

import re
from pathlib import Path

from doc_pages import ROOT, File, follow, read_page

PAGE = ROOT / "docs" / "tutorial.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_command_of_the_tutorial_prints_what_it_says(tmp_path: Path) -> None:
    assert follow(PAGE, tmp_path) >= 20


def test_the_tutorial_leaves_the_shipped_rules_in_the_end() -> None:
    # But for its dims, its prose, and the variants; so that who ports by hand lands on them.
    (ported,) = (
        s.text for s in read_page(TEXT) if isinstance(s, File) and s.path.endswith("neox.yaml")
    )
    ours = (ROOT / "rules" / "gpt-neox.yaml").read_text(encoding="utf-8")
    right = ported.replace("contiguous", "per_head").replace("[hidden, ffn]", "[ffn, hidden]", 1)
    names = re.compile(r"^      (\S+): \[", re.MULTILINE)
    assert names.findall(right) == names.findall(ours)
    conventions = re.compile(r"\nconventions:\n(?:  .*\n)+")
    assert conventions.findall(right) == conventions.findall(ours)
