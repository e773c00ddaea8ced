"""Write docs/bugs.md: every reported bug of tests/corpus, and what the tool says of it today.

``make docs`` writes the page; with ``--check`` nothing is written, and a page that is not what it
would be is named.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "bugs.md"

sys.path.insert(0, str(ROOT / "tests"))

from corpus_cases import Case, cases, catch, prepared  # noqa: E402

HEAD = """<!-- Made by `make docs` from tests/corpus and docs/generate_bugs.py; edit those. -->

# Bugs that it catches

Conversion bugs that were reported in public trackers, each made again as a rule file or a
checkpoint of a few lines in [tests/corpus](../tests/corpus), with its mended form beside it. The
tests run every case: the bug is caught with exactly these findings, the mended form passes with
none.
"""

TAIL = """## What it does not catch

An element that goes to the wrong place while every name and shape is right. What stands in a rule
file is taken at its word, and these are plausible words:

* **Two tensors of one shape under each other's names**: q for k, gate for up, `ln_1` for `ln_2`;
  and a list of sources in the wrong order, but for the order of text (`text-order`).
* **A bijection of the right shape**: a square matrix on its side, rows of heads in another order,
  halves swapped, a projection interleaved head by head that is split as if it were contiguous,
  where there are as many heads of keys as of queries.
* **A fact that no shape shows and no tensor holds**: an epsilon, a rope base, an activation. A
  network refuses other conventions than its own, so these are caught where the rule file says what
  the original does; whether it does is for its author to look up.
* **A block size that another one explains too**: 1,000 rows in 8 scales are blocks of 125, or of
  128 with a ragged last one.
* **Weights that were wrong before**: trained badly, merged badly, or damaged and then published
  with a digest of the damage. Of these only NaN, infinity, what looks freshly initialised, and
  equal tensors that nobody declared are noticed.

For all but the last there are `convert trace` and `convert compare`: record once what the original
computes, on any inputs, and the first module that parts from it is named. The square matrix above
is caught so.
"""


def page() -> str:
    """Return the page, with the output of every case as it is now."""
    found = [(case, message(case)) for case in cases()]
    rows = ["| bug | reported in | caught by | finding | message |", "|---|---|---|---|---|"]
    for case, text in found:
        cells = (
            f"[{case.title}](#{case.name})",
            f"[{case.thread}]({case.url})",
            f"`{case.command}`",
            ", ".join(f"`{code}`" for code in sorted(case.codes)),
            text.splitlines()[0].partition(": ")[2].replace("|", r"\|"),
        )
        rows.append(f"| {' | '.join(cells)} |")
    sections = "\n".join(section(case, text) for case, text in found)
    words = Counter(case.command for case, _ in found)
    by = ", ".join(f"{number} by `{word}`" for word, number in words.most_common())
    count = f"{len(found)} cases: {by}. "
    count += (
        "`load_into` and `load_model` are functions of `converter.runtime`, the rest commands. "
    )
    count += "What each finding of `lint` means is in [lint.md](lint.md)."
    return "\n".join([HEAD, *rows, "", count, "", sections, TAIL])


def section(case: Case, text: str) -> str:
    """Return the part of the page about one case."""
    return (
        f'### <a id="{case.name}"></a>{case.title}\n\n'
        f"{case.what} ([{case.thread}]({case.url}); "
        f"[case](../tests/corpus/{case.name}/case.yaml))\n\n"
        f"```text\n{shown(case)}\n{text}\n```\n"
    )


def shown(case: Case) -> str:
    """Return the line that runs the command that catches a bug."""
    word, *arguments = case.bug.split()
    if word.startswith("load_"):
        return f">>> {word}({', '.join(arguments)})"
    return f"$ convert {case.bug}"


def message(case: Case) -> str:
    """Return the findings that a command tells; of a comparison of numbers, the first line."""
    with tempfile.TemporaryDirectory() as folder, prepared(case, Path(folder)):
        lines = catch(case).text.splitlines()
    told = list(findings(lines))
    return told[0] if case.command == "compare" else "\n".join(told)


def findings(lines: Iterable[str]) -> Iterable[str]:
    """Yield the lines of an answer from the first finding on, but for their count."""
    started = False
    for line in lines:
        started = started or line.startswith(("error: ", "warning: "))
        if started and not line.endswith((" findings", " finding")):
            yield line


def main(arguments: Sequence[str]) -> int:
    """Write the page, or say that it is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
    check = parser.parse_args(arguments).check
    text = page()
    if check:
        stale = not PAGE.is_file() or PAGE.read_text("utf-8") != text
        if stale:
            print("docs/bugs.md is not up to date: make docs")
        return int(stale)
    PAGE.write_text(text, "utf-8")
    print(f"docs/bugs.md: {text.count('### ')} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
