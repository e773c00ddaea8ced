"""What the GitHub Action runs: verify, then say so in the log, the summary and the outputs.

Its inputs are variables of the environment, ``VERIFY_*``, and never part of a script: paths and
names may come from strangers. It runs from the action's own checkout, without torch.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from converter import api, report_verify
from converter.errors import ConverterError, UsageError
from converter.finding import Finding
from converter.report import Report

_SHOWN_FINDINGS = 50


def main() -> int:
    """Verify what the inputs say, and return the exit code of ``convert verify``."""
    try:
        report = report_verify.of_verdict(api.verify_all(_paths(), **_options()))
    except ConverterError as error:
        report = Report("verify", "", {}, error.findings, error.exit_code)
    _log(report)
    _append("GITHUB_STEP_SUMMARY", _summary(report))
    outputs = {
        "ok": str(report.exit_code == 0).lower(),
        "exit-code": str(report.exit_code),
        "report": _write(report),
    }
    _append("GITHUB_OUTPUT", "".join(f"{key}={value}\n" for key, value in outputs.items()))
    return report.exit_code


def _paths() -> list[str]:
    paths = [line.strip() for line in os.environ["VERIFY_PATH"].splitlines() if line.strip()]
    if not paths:
        raise UsageError("the input path is empty", expected="a directory, or one on each line")
    return paths


def _options() -> dict[str, Any]:
    """Return the options of ``verify_all``; an input that is given is never left out."""
    switch = os.environ["VERIFY_ALL_DIGESTS"]
    if switch not in ("true", "false"):
        raise UsageError("the input all-digests", expected="true or false", got=repr(switch))
    options: dict[str, Any] = {
        "level": os.environ["VERIFY_LEVEL"],
        "all_digests": switch == "true",
    }
    for name in ("manifest_sha256", "pins", "public_key"):
        value = os.environ[f"VERIFY_{name.upper()}"]
        if not value.strip():
            raise UsageError(
                f"the input {name.replace('_', '-')} is empty",
                expected="a value, or the input left out",
                hint="a variable or secret that is not set is empty",
            )
        if value != "none":
            options[name] = value.strip()
    return options


def _log(report: Report) -> None:
    """Print the report. What looks like a command of the log is none until the end is named."""
    if report.text:
        end = secrets.token_hex(16)
        print(f"::stop-commands::{end}\n{report.text}\n::{end}::")
    for finding in report.findings:
        print(f"::error title={_property(finding.code)}::{_data(finding.render())}")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _append(variable: str, text: str) -> None:
    """Append to the file that a variable names, as GitHub collects it."""
    with open(os.environ[variable], "a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _write(report: Report) -> str:
    descriptor, path = tempfile.mkstemp(".json", "verify-", os.environ["RUNNER_TEMP"])
    with open(descriptor, "w", encoding="ascii", newline="\n") as file:
        file.write(report.as_json() + "\n")
    return path


def _summary(report: Report) -> str:
    """Return the report as Markdown."""
    verdict = "all holds" if report.exit_code == 0 else f"exit code {report.exit_code}"
    return "\n".join((f"### Checkpoints: {verdict}", "", *_table(report), *_list(report), ""))


def _table(report: Report) -> Iterator[str]:
    directories: Any = report.result.get("directories")
    if directories:
        yield "| | directory | model | bytes of data checked | digest to pin | trusted by |"
        yield "|---|---|---|--:|---|---|"
    for item in directories or ():
        cells = (
            "✅" if item["holds"] else "❌",
            _plain(item["directory"]),
            _plain(item["model"] or ""),
            f"{item['data_bytes']:,}",
            _plain(item["manifest_sha256"] or ""),
            _plain(" and ".join(item["trusted_by"])),
        )
        yield f"| {' | '.join(cells)} |"


def _list(report: Report) -> Iterator[str]:
    if report.findings:
        yield ""
    for finding in report.findings[:_SHOWN_FINDINGS]:
        yield f"- **{_plain(finding.code)}** {'; '.join(map(_plain, _parts(finding)))}"
    if len(report.findings) > _SHOWN_FINDINGS:
        yield f"- and {len(report.findings) - _SHOWN_FINDINGS} more, in the log and the report"


def _parts(finding: Finding) -> Iterable[str]:
    yield f"{finding.where}: {finding.what}" if finding.where else finding.what
    for slot in ("tensor", "expected", "got"):
        if value := getattr(finding, slot):
            yield f"{slot}: {value}"


def _plain(text: str) -> str:
    """Return text that Markdown and HTML take as it is, whatever it holds."""
    return "".join(char if char.isalnum() or char in " /" else f"&#{ord(char)};" for char in text)


if __name__ == "__main__":
    sys.exit(main())
