"""Fill the templates: everything that comes from a manifest is escaped on the way."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converter import __version__
from converter.bundle_record import BundleRecord
from converter.errors import MismatchError
from converter.finding import Finding, counted, printable
from converter.manifest import Totals
from converter.page.facts import Member, member_of, relative
from converter.page.heatmaps import LEVELS, number, palette, shortened
from converter.page.lineage import step_text
from converter.page.value_counts import ValueCounts
from converter.report import size_text
from converter.verify import Verification

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class _Page:
    """What the outermost template is filled with."""

    title: str
    verification: Verification
    members: tuple[Member, ...]
    findings: tuple[Finding, ...]
    bundle: BundleRecord | None
    totals: Totals


def render(verification: Verification, values: Mapping[str, ValueCounts] | None = None) -> str:
    """Return the page about a directory, or about a bundle and its members.

    ``values`` are the counts of values by the name of a member, which is empty for a directory by
    itself. Raises MismatchError when there is no manifest, or no record of a bundle, to tell of.
    """
    if verification.manifest is None and verification.bundle is None:
        raise MismatchError.of(verification.findings)
    counts = values or {}
    if verification.bundle is None:
        members = [member_of(verification, name="", prefix="", values=counts.get(""))]
    else:
        members = [
            member_of(check, name=name, prefix=f"{name}-", values=counts.get(name))
            for check in verification.members
            for name in [check.directory.name]
        ]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=_page(verification, tuple(members)),
            style=_style(),
            policy=_policy(),
            version=__version__,
        )
    )


def _page(verification: Verification, members: tuple[Member, ...]) -> _Page:
    inside = {finding for check in verification.members for finding in check.findings}
    own = [finding for finding in verification.findings if finding not in inside]
    known = [member.manifest.totals for member in members if member.manifest]
    record = verification.bundle
    manifest = members[0].manifest if record is None else None
    named = record.bundle if record else (manifest.model.name if manifest else "")
    return _Page(
        title=named,
        verification=verification,
        members=members,
        findings=relative(own, verification),
        bundle=record,
        totals=Totals(
            sum(t.tensors for t in known),
            sum(t.parameters for t in known),
            sum(t.bytes for t in known),
        ),
    )


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(
        number=number,
        size=size_text,
        counted=counted,
        short=shortened,
        step=step_text,
    )
    return environment


def _shown(value: object) -> object:
    """Escape what would steer a reader's eye: names come from files of strangers."""
    return printable(value) if type(value) is str else value  # and no markup, which is one too


@functools.cache
def _style() -> str:
    """Return the style sheet with the colours of heatmaps; it holds nothing from a manifest."""
    css = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    levels = [
        f".{letter}{level}{{fill:{colour}}}"
        for letter, diverging in (("s", False), ("d", True))
        for level, colour in enumerate(palette(diverging=diverging))
    ]
    ramps = [
        f".ramp-{letter}{{background:linear-gradient(90deg,{','.join(palette(diverging=d))})}}"
        for letter, d in (("s", False), ("d", True))
    ]
    assert len(levels) == 2 * LEVELS
    return "\n".join([css, *levels, *ramps])


def _policy() -> str:
    """Return a policy that forbids scripts, frames, forms and every access to a network."""
    return "; ".join(
        (
            "default-src 'none'",
            "style-src 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
