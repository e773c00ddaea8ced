"""Write the page about a directory, complete or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from converter.digest import sha256
from converter.errors import MismatchError
from converter.finding import Finding
from converter.page.render import render
from converter.page.value_counts import ValueCounts
from converter.publish_file import StagedFile, require_outside
from converter.suspicions import suspicions
from converter.verify import Verification
from converter.write import write_file


@dataclass(frozen=True, slots=True)
class PageFile:
    """A page that was written: of ``size`` bytes, about what ``verification`` found.

    ``warnings`` are about weights that look wrong; ``has_values`` says whether the page shows how
    the values themselves lie.
    """

    out: Path
    size: int
    sha256: str
    verification: Verification
    warnings: tuple[Finding, ...]
    has_values: bool


def write_page(
    directory: Path,
    out: Path,
    *,
    overwrite: bool,
    check: Callable[[Path], Verification],
    count: Callable[[Verification], dict[str, ValueCounts]] | None,
) -> PageFile:
    """Check ``directory`` and write the page about it to ``out``.

    ``count``, if any, counts values by the names of members; it is not asked where the directory
    does not hold, since nobody knows then what the bytes are. Raises UsageError for a page in the
    directory itself, SourceError when that cannot be read, MismatchError when it has no manifest to
    tell of, and ExecutionError when the target exists or cannot be written.
    """
    require_outside(out, directory)
    with StagedFile(out, overwrite=overwrite) as staged:
        verification = check(directory)
        if verification.manifest is None and verification.bundle is None:
            raise MismatchError.of(verification.findings)
        values = count(verification) if count and verification.holds else None
        data = render(verification, values).encode()
        staged.require_space(len(data))
        write_file(staged.path, data)
        staged.publish()
    warnings = [*_warnings(verification)]
    if count and values is None:
        warnings.append(_unread(directory))
    return PageFile(
        out, len(data), sha256(data), verification, tuple(warnings), has_values=values is not None
    )


def _warnings(verification: Verification) -> list[Finding]:
    """Return what looks wrong about the weights of each member, which it names."""
    found = []
    for check in verification.members or (verification,):
        if check.manifest is not None:
            name = f"{check.directory.name}: " if verification.members else ""
            for finding in suspicions(check.manifest.tensors):
                found.append(replace(finding, what=f"{name}{finding.what}"))
    return found


def _unread(directory: Path) -> Finding:
    return Finding(
        "values-unread",
        "values were not read, since the directory is not what its manifest says",
        str(directory),
        hint="convert the source again",
        severity="warning",
    )
