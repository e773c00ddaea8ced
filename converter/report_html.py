"""What was written as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converter.errors import MismatchError
from converter.finding import counted
from converter.manifest import Totals
from converter.report import Report, amount, size_text
from converter.sheet import Sheet, Slots
from converter.verify import Verification

if TYPE_CHECKING:
    from converter.page.page_file import PageFile


def of_page(page: PageFile) -> Report:
    """Report a page that was written; exit code 7 when what it is about does not hold."""
    check = page.verification
    members = check.members or (check,)
    count = len(check.findings)
    holds = "the structure holds" if not check.data_bytes else "every byte holds"
    rows = [
        ("wrote", f"{page.out}, {size_text(page.size)}"),
        ("about", f"{check.directory}: {_what(check)}"),
        ("check", f"{counted(count, 'difference')}; the page lists them" if count else holds),
    ]
    result = {
        "directory": str(check.directory),
        "out": str(page.out),
        "size": page.size,
        "sha256": page.sha256,
        "holds": check.holds,
        "data_bytes": check.data_bytes,
        "has_values": page.has_values,
        "bundle": None if check.bundle is None else check.bundle.bundle,
        "manifest_sha256": check.manifest_sha256,
        "members": [_member(member) for member in members],
    }
    findings = (*check.findings, *page.warnings)
    exit_code = MismatchError.exit_code if count else 0
    sheet = Sheet([Slots(rows)])
    return Report("report", sheet.text(), result, findings, exit_code, sheet)


def _what(check: Verification) -> str:
    known = [c.manifest.totals for c in check.members or (check,) if c.manifest is not None]
    totals = Totals(
        sum(t.tensors for t in known),
        sum(t.parameters for t in known),
        sum(t.bytes for t in known),
    )
    name = check.manifest.model.name if check.manifest else ""
    if check.bundle is not None:
        name = f"{check.bundle.bundle}, {counted(len(check.members), 'member')}"
    return f"{name}, {amount(totals)}"


def _member(check: Verification) -> dict[str, object]:
    manifest = check.manifest
    return {
        "name": check.directory.name,
        "model": None if manifest is None else manifest.model.name,
        "holds": check.holds,
        "tensors": None if manifest is None else manifest.totals.tensors,
    }
