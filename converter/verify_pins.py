"""Pins: digests that a caller keeps elsewhere, such as in a repository, and trusts.

The digest of its manifest covers all of a canonical directory, that of its record all of a bundle.
So one digest that is kept where an intruder cannot write is a root of trust without keys. A file of
them has the form of ``sha256sum``, which can check it too: a digest and the path of a
``manifest.json`` or ``bundle.json``, from the working directory, on each line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from converter.bundle_record import BUNDLE_NAME
from converter.canonical import MANIFEST_NAME
from converter.errors import UsageError
from converter.finding import Finding
from converter.verify import Verification

PINNED = "pin"

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_WRONG = "find out who changed it; pin another digest only once you know that it is right"


@dataclass(frozen=True, slots=True)
class Pin:
    """The digest that a directory's manifest, or a bundle's record, must have.

    ``where`` is the line that says so.
    """

    directory: Path
    sha256: str
    where: str | None = None


def pin_of(directory: Path, sha256: str) -> Pin:
    """Return the pin of one directory. Raises UsageError when ``sha256`` is none."""
    if not _SHA256.fullmatch(sha256):
        raise UsageError(
            "not a sha256",
            expected="64 hexadecimal digits",
            got=sha256 or "nothing, as of a variable that is not set",
            hint=f"sha256sum {MANIFEST_NAME} prints it, and so do convert and verify",
        )
    return Pin(directory, sha256.lower())


def read_pins(path: Path) -> tuple[Pin, ...]:
    """Read a file of pins, whose paths are from the working directory.

    Lines that are empty or begin with ``#`` say nothing. Raises UsageError when it cannot be read,
    pins nothing, or pins one directory twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        what = f"the pins cannot be read: {reason}"
        raise UsageError(what, code="pins", where=str(path)) from error
    pins: dict[str, Pin] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            pin = _read_pin(line, f"{path}:{number}")
            if (first := pins.setdefault(_place(pin.directory), pin)) is not pin:
                what = f"{pin.directory} is pinned twice, first at {first.where}"
                raise UsageError(what, code="pins", where=pin.where)
    if not pins:
        raise UsageError("the file pins nothing", code="pins", where=str(path))
    return tuple(pins.values())


def _read_pin(line: str, where: str) -> Pin:
    match = _LINE.fullmatch(line)
    file = Path(match[2]) if match else Path()
    if match is None or file.name not in (MANIFEST_NAME, BUNDLE_NAME):
        raise UsageError(
            "not a pin",
            code="pins",
            where=where,
            expected=f"64 hexadecimal digits, two spaces, and the path of a {MANIFEST_NAME} or "
            f"{BUNDLE_NAME}, as sha256sum prints them",
            got=line,
        )
    return Pin(file.parent, match[1].lower(), where)


def check_pins(
    checked: Iterable[Verification], pins: Sequence[Pin], *, below: Iterable[Path]
) -> list[Verification]:
    """Hold every directory against its pin; say which has none, and which pin has no directory.

    Members of a bundle may be pinned too, but need not be. Pins are expected to have a directory
    when they lie at or below one of the paths ``below``.
    """
    wanted = {_place(pin.directory): pin for pin in pins}
    held = [_with_pin(verification, wanted) for verification in checked]
    met = {_place(one.directory) for check in held for one in (check, *check.members)}
    roots = [_place(path) for path in below]
    for place, pin in wanted.items():
        if place not in met and any(_is_at_or_below(place, root) for root in roots):
            held.append(_absent(pin))
    return held


def _with_pin(verification: Verification, wanted: Mapping[str, Pin]) -> Verification:
    pin = wanted.get(_place(verification.directory))
    findings = list(_check(verification, pin)) if pin else [_unpinned(verification)]
    for member in verification.members:
        if member_pin := wanted.get(_place(member.directory)):
            findings += _check(member, member_pin)
    trusted_by = verification.trusted_by if findings else (*verification.trusted_by, PINNED)
    distrusted = (*verification.distrusted, *findings)
    return replace(verification, distrusted=distrusted, trusted_by=trusted_by)


def _check(verification: Verification, pin: Pin) -> Iterator[Finding]:
    got = verification.manifest_sha256
    if got != pin.sha256:
        name = _pinned_name(verification)
        yield Finding(
            "pin",
            f"not the {name} that was pinned" + (f" at {pin.where}" if pin.where else ""),
            str(verification.directory / name),
            expected=f"sha256 {pin.sha256}",
            got=f"sha256 {got}" if got else "no such file that can be read",
            hint=_WRONG,
        )


def _unpinned(verification: Verification) -> Finding:
    name = _pinned_name(verification)
    digest = verification.manifest_sha256
    return Finding(
        "pin-missing",
        "no digest is pinned for it",
        str(verification.directory / name),
        expected="a line in the file of pins",
        got=f"none; it has sha256 {digest}" if digest else "none",
        hint="pin it once you know that it is right, or remove it",
    )


def _pinned_name(verification: Verification) -> str:
    is_bundle = os.path.lexists(verification.directory / BUNDLE_NAME)
    return BUNDLE_NAME if is_bundle else MANIFEST_NAME


def _absent(pin: Pin) -> Verification:
    """Return the check of a directory that is pinned, but not there."""
    finding = Finding(
        "pin-unused",
        "a directory that is pinned is not there",
        pin.where,
        expected=str(pin.directory),
        got="no such canonical directory or bundle",
        hint="bring it back, or remove its pin",
    )
    return Verification(pin.directory, None, (), 0, distrusted=(finding,))


def _place(path: Path) -> str:
    """Return where a path leads, however it was written."""
    return os.path.realpath(path)


def _is_at_or_below(place: str, root: str) -> bool:
    return Path(place).is_relative_to(root)
