"""What the check of canonical directories and bundles came to."""

from __future__ import annotations

from converter.bundle_record import BUNDLE_NAME
from converter.canonical import MANIFEST_NAME
from converter.finding import counted, printable
from converter.report import Report, amount, size_text
from converter.verify import Verification
from converter.verify_many import Verdict


def of_verdict(verdict: Verdict) -> Report:
    """Report the check of some directories, with the members of bundles before their bundle."""
    lines, results = [], []
    for check in verdict.checked:
        for member in check.members:
            lines.append(_line(member))
            results.append(_json(member))
        lines.append(_line(check))
        lines += _digest(check)
        results.append(_json(check))
    findings = (
        *(finding for check in verdict.checked for finding in check.distrusted),
        *(finding for check in verdict.checked for finding in check.findings),
        *verdict.findings,
        *(finding for error in verdict.errors for finding in error.findings),
    )
    return Report(
        "verify",
        "\n".join(lines),
        {"directories": results},
        tuple(dict.fromkeys(findings)),
        verdict.exit_code,
    )


def _json(check: Verification) -> dict[str, object]:
    manifest = check.manifest
    return {
        "directory": str(check.directory),
        "holds": check.holds,
        "model": None if manifest is None else manifest.model.name,
        "manifest_sha256": check.manifest_sha256,
        "content_sha256": None if manifest is None else manifest.content_sha256,
        "data_bytes": check.data_bytes,
        "trusted_by": list(check.trusted_by),
        "derived": check.derived,
    }


def _line(check: Verification) -> str:
    return printable(f"{check.directory}: {_what(check)}{_how(check)}: {_came_to(check)}")


def _what(check: Verification) -> str:
    if check.manifest is not None:
        return f"{check.manifest.model.name}, {amount(check.manifest.totals)}"
    if check.bundle is not None:
        return f"bundle of {counted(len(check.members), 'member')}"
    if check.manifest_sha256 is None and not check.findings:
        return "not there"
    return "no manifest that can be read"


def _how(check: Verification) -> str:
    if check.manifest is None and check.bundle is None:
        return ""
    size = check.data_bytes
    read = f"; {size_text(size)} of data checked" if size else "; no data read"
    return read + (", derived again from its source" if check.derived else "")


def _came_to(check: Verification) -> str:
    count = len(check.findings) + len(check.distrusted)
    return counted(count, "difference") if count else "holds"


def _digest(check: Verification) -> list[str]:
    """Say which digest is the one to pin, and by what it is trusted already."""
    if check.manifest_sha256 is None:
        return []
    name = MANIFEST_NAME if check.bundle is None else BUNDLE_NAME
    by = f"; trusted by {' and '.join(check.trusted_by)}" if check.trusted_by else ""
    return [f"  {name} sha256 {check.manifest_sha256}{by}"]
