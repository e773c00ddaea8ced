"""Check any number of directories, and come to one verdict on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from converter.errors import ConverterError, MismatchError, TrustError, UsageError
from converter.finding import Finding
from converter.verify import Verification
from converter.verify_folder import find

# Takes the check of a directory further.
Further: TypeAlias = Callable[[Verification], Verification]


_LISTED = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check of several directories came to.

    ``findings`` are of none of the directories; ``errors`` say what could not be checked.
    """

    checked: tuple[Verification, ...]
    findings: tuple[Finding, ...] = ()
    errors: tuple[ConverterError, ...] = ()

    @property
    def exit_code(self) -> int:
        """That of a broken trust, else of a difference, else of the first thing unchecked."""
        if any(check.distrusted for check in self.checked):
            return TrustError.exit_code
        if self.findings or any(check.findings for check in self.checked):
            return MismatchError.exit_code
        return min((error.exit_code for error in self.errors), default=0)


def verify_many(
    paths: Iterable[Path],
    check: Callable[[Path], Verification],
    *further: Further,
    alone: str | None = None,
) -> Verdict:
    """Check every directory at or below ``paths`` once, and take each check further.

    Errors are part of the verdict, so that one directory never hides what is wrong with another.
    Raises UsageError, as when there are several and ``alone`` is an option that is for one.
    """
    found, findings, errors = _find_all(paths)
    if alone and len(found) > 1:
        raise UsageError(
            f"{alone} is for one directory",
            got=f"{len(found)}: {', '.join(map(str, found[:_LISTED]))}",
            hint="give each its own, in a file of digests: --pins FILE"
            if alone == "--manifest-sha256"
            else "give one directory, or bundle, at a time",
        )
    checked = []
    for directory in found:
        try:
            verification = check(directory)
        except UsageError:
            raise
        except ConverterError as error:
            errors.append(error)
            continue
        for take in further:
            try:
                verification = take(verification)
            except UsageError:
                raise
            except ConverterError as error:
                errors.append(error)
        checked.append(verification)
    return Verdict(tuple(checked), tuple(findings), tuple(errors))


def _find_all(
    paths: Iterable[Path],
) -> tuple[Sequence[Path], list[Finding], list[ConverterError]]:
    found: dict[Path, None] = {}
    findings: list[Finding] = []
    errors: list[ConverterError] = []
    for path in paths:
        try:
            there = find(path)
        except ConverterError as error:
            errors.append(error)
        else:
            found |= dict.fromkeys(there.directories)
            findings += there.findings
    return tuple(found), findings, errors
