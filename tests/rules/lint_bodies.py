"""What lint finds in the body of a rule file, under all of its variants."""

from tiny_rules import parsed

from converter.finding import Finding
from converter.rules.lint import Linted, lint_file


def linted(body: str) -> Linted:
    return lint_file(parsed(body))


def found(body: str) -> list[tuple[str, str | None]]:
    """Return the code and the place of every finding."""
    return [(finding.code, finding.where) for finding in linted(body).findings]


def only(body: str) -> Finding:
    """Return the one finding."""
    (finding,) = linted(body).findings
    return finding
