"""What the command lint answers."""

from __future__ import annotations

from collections.abc import Mapping

from converter.finding import counted, printable
from converter.report import Report
from converter.rules.lint import Linted


def of_lint(files: Mapping[str, Linted]) -> Report:
    """Report the findings of each rule file, and what is no fault; exit code 3 for findings."""
    lines: list[str] = []
    for name, found in files.items():
        count = counted(len(found.findings), "finding") if found.findings else "no findings"
        lines.append(f"{name}: {count}")
        lines += (f"  note: {note.where}: {note.what}: {note.tensor}" for note in found.notes)
    findings = tuple(finding for found in files.values() for finding in found.findings)
    result = {
        "files": {name: len(found.findings) for name, found in files.items()},
        "notes": {
            name: [note.as_json() for note in found.notes]
            for name, found in files.items()
            if found.notes
        },
    }
    text = "\n".join(map(printable, lines))
    return Report("lint", text, result, findings, 3 if findings else 0)
